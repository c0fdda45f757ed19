"""Attention rules as boolean matrices [..., queries, keys], True = may attend.

Rules speak of slots: absolute positions, except for WeDLM, whose causal rule follows physical
order. Pads are hidden as keys only; a padded query row attends like any other and is never read
(hiding both sides would leave rows with nothing to attend to).
"""

from torch import Tensor

from dllm.models.spec import ModelSpec


def block_causal(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """Blocks of `block_size` counted from slot 0: a row sees its own block and all before it."""
    return (queries[..., :, None] // block_size) >= (keys[..., None, :] // block_size)


def causal(queries: Tensor, keys: Tensor) -> Tensor:
    """A row sees itself and what comes before it."""
    return queries[..., :, None] >= keys[..., None, :]


def attention_mask(spec: ModelSpec, queries: Tensor, keys: Tensor) -> Tensor | None:
    """The model's rule for rows at slots `queries` over `keys` (each [..., count]); None = all. A
    causal prefix is told by where the block begins, not here."""
    if spec.attention == "full":
        return None
    if spec.attention == "causal":
        return causal(queries, keys)
    assert spec.attention == "block_causal" and spec.block_size is not None
    return block_causal(queries, keys, spec.block_size)
