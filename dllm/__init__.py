"""Parallel decoding of diffusion LLMs; the one denoising loop is in `dllm.engine`."""

__version__ = "0.1.0"
