"""Adaptive blocks (AdaBlock-dLLM, arXiv 2509.26432): a block ends on a predicted delimiter.

Rule: when a block opens, the most likely tokens of a window of w = window_fraction * gen_length
positions are searched for delimiters. The most confident delimiter (leftmost on ties), if its
confidence q >= delimiter_threshold, is the block's last position; otherwise the block has
default_block_length positions. The opening forward is also the block's first step, so that sizing
costs none. The rest is the rule's business: any rule whose steps are not laid out in advance.

Needs the window's predictions when a block opens: no cache, or one that opens blocks with a full
forward. Official code, followed here: the window is a quarter of gen_length at every block, also
the first; the paper is said to take a quarter of what is generated so far
(`window_base: generated`) [second hand]. q is read in the logits' dtype, where in bf16 delimiters
often tie (`delimiter_conf_dtype`); the window's tokens are the clean arg-max, also where a rule
samples (the LLaDA code searches the drawn tokens, Dream's does not). Not for block-causal models,
whose blocks are trained.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step import scores
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.plan import Need
from dllm.step.prediction import View
from samplers.parts.delimiters import Delimiters, resolved, token_ids
from samplers.parts.regions import plain_layout


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlocks:
    default_block_length: int
    """Positions of a block without a sure delimiter (>= 1)."""
    delimiters: Delimiters
    """Tokens on which a block may end."""
    delimiter_ids: list[int] | None
    """Token ids in place of `delimiters`; null = those of the texts."""
    delimiter_threshold: float | None
    """Confidence from which a delimiter ends the block, in [0, 1]; null = never (fixed blocks)."""
    window_fraction: float
    """Window as a fraction of its base, in (0, 1]."""
    window_base: Literal["gen_length", "generated"]
    delimiter_conf_dtype: scores.ConfDtype
    """dtype of a delimiter's confidence; official: the model's."""

    needs: ClassVar[frozenset[Need]] = frozenset({"opening_logits"})

    def __post_init__(self) -> None:
        if self.default_block_length < 1:
            raise ConfigError(
                f"sampler.region.default_block_length={self.default_block_length} must be >= 1"
            )
        if not 0 < self.window_fraction <= 1:
            raise ConfigError(
                f"sampler.region.window_fraction={self.window_fraction} is outside (0, 1]"
            )
        threshold = self.delimiter_threshold
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"sampler.region.delimiter_threshold={threshold} is outside [0, 1]")

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        if self.delimiter_ids is not None:
            return self
        found = token_ids(tokenizer, self.delimiters, "sampler.region.delimiters")
        return replace(self, delimiter_ids=found)

    def validate(self, gen_length: int) -> None:
        pass

    def layout(self, prompt: Prompt, spec: ModelSpec) -> Layout:
        if spec.attention != "full":
            raise ConfigError(
                f"sampler/region=adaptive: the {spec.family} model's attention is "
                f"{spec.attention}, its blocks are not free; use sampler/region=aligned"
            )
        if self.delimiter_threshold is not None:
            option = "sampler.region.delimiters"
            resolved(self.delimiter_ids, self.delimiters, spec, option)
        return plain_layout(prompt, spec)

    def blocks(self, gen_length: int) -> int:
        raise ConfigError(
            "sampler/region=adaptive finds its blocks while decoding: rules whose steps are laid "
            "out over the blocks in advance can't use it"
        )

    def next_block(self, canvas: Canvas, row: int) -> tuple[int, int] | None:
        """The whole window at first; `refine` moves the end once it is predicted."""
        start, length = int(canvas.block_end[row]), int(canvas.length[row])
        if start >= length:
            return None
        size = max(self.window(canvas, row, start), self.default_block_length)
        return start, min(start + size, length)

    def window(self, canvas: Canvas, row: int, start: int) -> int:
        """Positions searched for delimiters."""
        left = int(canvas.length[row]) - start
        generated = start - int(canvas.prompt_length[row])
        if self.window_base == "gen_length":
            return min(int(self.window_fraction * canvas.prompts[row].gen_length), left)
        return min(max(1, int(self.window_fraction * generated)), left)

    def eligible(self, canvas: Canvas) -> Bool[np.ndarray, "batch canvas"]:
        return canvas.masked() & canvas.in_block()

    def refine(self, view: View) -> np.ndarray | None:
        canvas = view.canvas
        opening = canvas.step_in_block == 0
        if not opening.any():
            return None
        default = np.minimum(canvas.block_start + self.default_block_length, canvas.length)
        ends = np.where(opening, default, canvas.block_end)
        if not view.positions.shape[1] or self.delimiter_threshold is None:
            return ends
        window = [self.window(canvas, b, int(s)) for b, s in enumerate(canvas.block_start)]
        # A rule may have asked for rows outside the block, too.
        searched = view.fresh & (view.positions >= view.column(canvas.block_start))
        searched &= view.positions < view.column(canvas.block_start + np.array(window))
        top, token = view.top
        delimiter = searched & torch.isin(token, token.new_tensor(self.delimiter_ids or []))
        q = scores.cast(view.logits, self.delimiter_conf_dtype)
        # exp(l - logsumexp), as the official code computes it: rounded otherwise than a softmax.
        q = (top.to(q.dtype) - q.logsumexp(dim=-1)).exp().masked_fill(~delimiter, -1)
        best, at = q.max(dim=1)
        sure = delimiter.any(dim=1) & (best.double() >= self.delimiter_threshold)
        chosen = view.positions.gather(1, at[:, None])[:, 0] + 1
        found = (sure.cpu().numpy() & opening).nonzero()[0]
        ends[found] = chosen.cpu().numpy()[found]
        return ends
