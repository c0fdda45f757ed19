"""Attention rules as boolean matrices [..., queries, keys], True = may attend.

Rules speak of slots: absolute positions, except for WeDLM, whose causal rule follows physical
order. Pads are hidden as keys only; a padded query row attends like any other and is never read
(models section 4: hiding both sides leaves rows with nothing to attend to).
"""

import torch
from torch import Tensor

from dllm.models.spec import ModelSpec


def block_causal(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """Blocks of `block_size` counted from slot 0: a row sees its own block and all before it."""
    return (queries[..., :, None] // block_size) >= (keys[..., None, :] // block_size)


def bounded_blocks(queries: Tensor, keys: Tensor, bounds: Tensor) -> Tensor:
    """Blocks of varying length; `bounds` are the first slots of the second and later blocks."""
    of_query = torch.bucketize(queries, bounds, right=True)
    of_key = torch.bucketize(keys, bounds, right=True)
    return of_query[..., :, None] >= of_key[..., None, :]


def causal(queries: Tensor, keys: Tensor) -> Tensor:
    """A row sees itself and what comes before it."""
    return queries[..., :, None] >= keys[..., None, :]


def attention_mask(spec: ModelSpec, queries: Tensor, keys: Tensor) -> Tensor | None:
    """The model's rule for rows at slots `queries` over `keys` (each [..., count]); None = all."""
    if spec.attention == "full":
        return None
    if spec.attention == "causal":
        return causal(queries, keys)
    assert spec.block_size is not None
    return block_causal(queries, keys, spec.block_size)


def hide_keys(mask: Tensor | None, present: Tensor) -> Tensor:
    """`mask` with the keys [..., keys] that are not `present` (padding) hidden from every query."""
    present = present[..., None, :]
    return present if mask is None else mask & present


def observed_first(masked: Tensor) -> Tensor:
    """WeDLM's physical order of the positions of `masked` [count]: decided ones first, then the
    masked ones, both ascending. Their rotary positions are this very list."""
    return torch.argsort(masked.to(torch.int8), stable=True)
