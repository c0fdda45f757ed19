"""Values on their way to the host."""

import numpy as np
import torch

from dllm.step.transfer import fetched, packed, unpacked


PARTS = [
    torch.tensor([[True, False]]),
    torch.tensor([[151_935, -1, 2**31]]),
    torch.tensor([0.5, torch.nan], dtype=torch.bfloat16),
    torch.zeros(2, 0),
]


def test_one_copy_brings_what_single_ones_would() -> None:
    together = unpacked(packed(PARTS), PARTS)
    for alone, one in zip(fetched(PARTS), together, strict=True):
        assert (alone.dtype, alone.shape) == (one.dtype, one.shape)
        np.testing.assert_array_equal(alone, one)
    assert [part.dtype for part in together] == [bool, np.int64, np.float64, np.float64]
