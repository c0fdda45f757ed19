"""Whether a layer's parts between its products are computed by one kernel each.

Starting such a kernel takes the host several times as long as starting one of torch's operations:
it pays where the GPU is what is waited for, or where starts cost nothing (CUDA graphs).
"""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor


WORTH = 2**23
"""Elements. Measured on an H200 with LLaDA-8B's shape in bfloat16 (4,096 wide), of the speed of the
bare products: 88 to 94 % at 2,048 rows instead of 70, but 24 % at 32 rows instead of 30, and 29 %
at 384 instead of 36, for which the host takes as long as the GPU for 1,000."""

_recording = ContextVar("recording", default=False)


@contextmanager
def recorded() -> Iterator[None]:
    """In here, forwards are prepared to be replayed."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def kernels_for(x: Tensor) -> ModuleType | None:
    """`dllm.models.kernels`, which compute in float32, on an NVIDIA GPU where they pay, Triton can
    compile them and no gradient is wanted; None = torch's operations."""
    if not x.is_cuda or torch.is_grad_enabled() or x.dtype.itemsize > 4:
        return None
    return _kernels(x.device) if x.numel() >= WORTH or _recording.get() else None


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if find_spec("triton") is None or compiler is None or torch.version.hip is not None:
        return None
    try:
        kernels = import_module("dllm.models.kernels")
        kernels.gated(*torch.ones(2, 1, device=device))
    except Exception as error:  # of the compiler, the driver, the loader, each its own
        told = str(error).strip().splitlines()[:1]
        warnings.warn(
            f"Triton compiles nothing here, torch's operations do its work: {type(error).__name__}"
            f"{': ' if told else ''}{''.join(told)}",
            stacklevel=2,
        )
        return None
    return kernels
