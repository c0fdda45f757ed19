"""Engine for parallel decoding of diffusion LLMs; see `dllm.loop` for the one denoising loop."""

__version__ = "0.1.0"
