"""The gated feed-forward of dense layers and shared experts."""

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dllm.models.fused import kernels_for
from dllm.models.linear import Linear
from dllm.models.spec import Activation


GATES: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class SwiGLU(nn.Module):
    def __init__(self, d_model: int, width: int, activation: Activation = "silu"):
        super().__init__()
        self.activation: Activation = activation
        self.gate = Linear(d_model, width, bias=False)
        self.up = Linear(d_model, width, bias=False)
        self.down = Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        kernels = kernels_for(gate)
        if kernels is not None and self.activation == "silu":
            return self.down(kernels.gated(gate, self.up(x)))
        gate = GATES[self.activation](gate)  # what it was made of is needed no more
        return self.down(gate * self.up(x))
