"""What happens when an end token has been committed; the loop applies it after every step."""

from enum import StrEnum

import numpy as np

from dllm.step.canvas import Canvas


class EosPolicy(StrEnum):
    NONE = "none"
    """Decode the whole canvas (LLaDA, Fast-dLLM)."""
    FILL_AFTER_BLOCK = "fill_after_block"
    """A complete block that holds an end token ends the answer: the rest becomes the end token
    (LocalLeap's and dInfer's early stop)."""
    STOP_AFTER_BLOCK = "stop_after_block"
    """As `fill_after_block`, but the rest stays masked (dInfer without early stop)."""
    KEEP_BLOCK = "keep_block"
    """As `fill_after_block`, but the canvas ends after the block (SDAR)."""
    FILL_AFTER_END_BLOCK = "fill_after_end_block"
    """A complete block of nothing but end tokens ends the answer: the rest becomes the end token
    (FreeDave's early exit)."""
    CUT_AFTER_BLOCK = "cut_after_block"
    """As `fill_after_block`, but the canvas ends after the block's first end token (TDAR's
    engine)."""
    STOP_UNTIL_EOS = "stop_until_eos"
    """Stop as soon as no mask is left before the first end token; the rest becomes the end
    token."""
    FILL_AT_ONCE = "fill_at_once"
    """As `stop_until_eos`, but the first end token fills the rest as soon as it is committed,
    masks before it or not (constrained decoding: arXiv 2508.10111, 2602.00612)."""
    CUT = "cut"
    """As `stop_until_eos`, but the canvas ends after the end token."""

    @property
    def at_block_end(self) -> bool:
        """Whether only complete blocks are looked at."""
        return self in (
            EosPolicy.FILL_AFTER_BLOCK,
            EosPolicy.FILL_AFTER_END_BLOCK,
            EosPolicy.STOP_AFTER_BLOCK,
            EosPolicy.KEEP_BLOCK,
            EosPolicy.CUT_AFTER_BLOCK,
        )

    @property
    def shortens(self) -> bool:
        """Whether the canvas ends with the answer."""
        return self in (EosPolicy.KEEP_BLOCK, EosPolicy.CUT_AFTER_BLOCK, EosPolicy.CUT)


def first_eos(tokens: np.ndarray, eos_ids: tuple[int, ...]) -> int | None:
    """Index of the first end token of one row."""
    found = np.isin(tokens, eos_ids).nonzero()[0]
    return int(found[0]) if found.size else None


def end_of_answer(canvas: Canvas, row: int, policy: EosPolicy, block_done: bool) -> int | None:
    """Absolute position from which the rest of the row is to be filled with the end token (removed
    where the policy shortens, left under `stop_after_block`), or None to go on."""
    if policy is EosPolicy.NONE:
        return None
    generated = canvas.generated(row)
    start = int(canvas.prompt_length[row])
    if policy.at_block_end:
        # A block may share its first positions with the prompt.
        first = max(start, int(canvas.block_start[row]))
        block = canvas.tokens[row, first : canvas.block_end[row]]
        end = first_eos(block, canvas.ends(row))
        if not block_done or end is None:
            return None
        if policy is EosPolicy.FILL_AFTER_END_BLOCK and not np.isin(block, canvas.ends(row)).all():
            return None
        cuts = policy is EosPolicy.CUT_AFTER_BLOCK
        return first + end + 1 if cuts else int(canvas.block_end[row])
    end = first_eos(generated, canvas.ends(row))
    if end is None or (generated[:end] == canvas.mask_id).any():
        return None
    return start + end + 1
