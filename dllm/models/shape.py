"""Models without memory: to be filled, or only to be counted."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from dllm.models.gemma import DiffusionGemma
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer


def shape_only(spec: ModelSpec) -> Transformer:
    """The spec's transformer on the meta device."""
    with torch.device("meta"), _NoInitialValues():
        return DiffusionGemma(spec) if spec.windows is not None else Transformer(spec)


class _NoInitialValues(TorchFunctionMode):
    """Skips `torch.nn.init`: drawing normal values for nothing makes torch import its compiler,
    1.5 s of every start."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)
