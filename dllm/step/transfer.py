"""Tensors on their way to the host."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on a device, which is not waited for: what is to be sent is read at once."""
    return tensor.to(device, non_blocking=True)


def sent_together(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Whole numbers of the host on a device: to an accelerator in one copy."""
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    row = sent(torch.from_numpy(np.concatenate([array.ravel() for array in arrays])), device)
    parts = row.split([array.size for array in arrays])
    return [part.view(like.shape) for part, like in zip(parts, arrays, strict=True)]


def fetched(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """The tensors, of one device, as host arrays: bool, int64, or float64 for all floating types.

    From an accelerator they come in one copy: each on its own would be waited for.
    """
    if tensors[0].is_cpu:
        # numpy has no bfloat16.
        return [(t.double() if t.is_floating_point() else t).numpy() for t in tensors]
    return unpacked(packed(tensors).cpu(), tensors)


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """All values in one row of float64, which holds token ids exactly."""
    return torch.cat([tensor.flatten().double() for tensor in tensors])


def unpacked(row: Tensor, tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """What was packed, in the shapes of `tensors` and in their kind of values."""
    parts = row.split([tensor.numel() for tensor in tensors])
    return [
        (part if like.is_floating_point() else part.to(like.dtype)).view(like.shape).numpy()
        for part, like in zip(parts, tensors, strict=True)
    ]
