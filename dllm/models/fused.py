"""Whether a layer's parts between its products are computed by one kernel each."""

import os
import shutil
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor


def kernels_for(x: Tensor) -> ModuleType | None:
    """`dllm.models.kernels` on an NVIDIA GPU where Triton can compile them and no gradient is
    wanted; None = torch's operations."""
    if not x.is_cuda or torch.is_grad_enabled():
        return None
    return _kernels()


@cache
def _kernels() -> ModuleType | None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if find_spec("triton") is None or compiler is None or torch.version.hip is not None:
        return None
    return import_module("dllm.models.kernels")
