"""Parallel decoding of diffusion LLMs; the one denoising loop is in `dllm.engine`.

model = dllm.load("tiny-llada")
dllm.generate(model, ["copy: Lars Kurt Ruth Lola"], sampler="localleap", cache="dual")
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from dllm.api import Generation, Step, generate, load, stream

__all__ = ["Generation", "Step", "generate", "load", "stream"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module dllm has no {name}")
    from dllm import api  # torch, not needed to import the package

    return getattr(api, name)
