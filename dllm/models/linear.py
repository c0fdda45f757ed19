"""Products with weights: on the host in float32 by oneDNN.

torch gives float32 products to MKL, which computes by AVX2 on processors that are not Intel's;
oneDNN generates code for what the processor has (measured on an AMD EPYC with AVX-512, one core, 64
and 384 rows by 512 x 1536: 190 and 240 GFLOP/s against 95 and 110).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return product(input, self.weight, self.bias)


def has_kernel(device: torch.device) -> bool:
    """Whether oneDNN's product is to be had: on the host, and it has no gradient."""
    return (
        device.type == "cpu"
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As torch's own [..., inputs] -> [..., outputs], but for the last bits of a float32 product
    that needs no gradient."""
    if (
        x.dtype == weight.dtype == torch.float32
        and x.device == weight.device
        # For other strides it has a plain loop only, thousands of times slower.
        and (weight.is_contiguous() or weight.mT.is_contiguous())
        # It reads a bias as if it were contiguous float32.
        and (bias is None or (bias.is_contiguous() and bias.dtype == torch.float32))
        and has_kernel(x.device)
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)
