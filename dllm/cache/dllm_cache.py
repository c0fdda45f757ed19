"""dLLM-Cache (arXiv 2506.06295): prompt and response on intervals of their own, the response's most
changed rows in between.

The prompt is recomputed every `prompt_interval` steps of a sequence, the response every
`response_interval`. In the other steps each layer computes the values of all response rows and
recomputes the `update_share` of them whose values differ most (cosine) from the stored ones;
attention and feed-forward outputs of the other rows are kept, so that every position has logits.
The first layer is recomputed whole (both public codes; `false` = the first release). Exact in steps
in which both intervals meet.

Settings [re-implementation], prompt / response on GSM8K, HumanEval, MATH-500, MBPP, GPQA, MMLU-Pro:
LLaDA-Base 25/5 50/5 50/8 25/4 100/8 100/6, -Instruct 50/7 25/5 50/1 100/5 50/6 50/3; Dream-Base
100/8 5/1 100/4 25/8 100/8 25/2, -Instruct 25/2 50/1 50/1 10/8 10/8 5/1; any other task 50/4.
update_share 0.25 always. Needs full attention.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from dllm.cache.memory import PerSequence
from dllm.errors import ConfigError
from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import ForwardKind, Need, Partial, Plan, Request


@dataclass
class _Seen:
    """Length of a sequence whose rows have outputs."""

    length: int = 0


@dataclass(kw_only=True)
class DLLMCache:
    prompt_interval: int
    """Steps between two computations of the prompt (>= 1)."""
    response_interval: int
    """Steps between two computations of the whole response (>= 1)."""
    update_share: float
    """Share of the response recomputed in the other steps, in [0, 1]."""
    always_refresh_first_layer: bool
    audit: bool
    """Compare every step with a cache-free forward, which is not counted."""

    stores: ClassVar[bool] = True
    attention: ClassVar[frozenset[AttentionKind]] = frozenset({"full"})

    def __post_init__(self) -> None:
        for name in ("prompt_interval", "response_interval"):
            if getattr(self, name) < 1:
                raise ConfigError(f"cache.{name}={getattr(self, name)} must be >= 1")
        if not 0 <= self.update_share <= 1:
            raise ConfigError(f"cache.update_share={self.update_share} is outside [0, 1]")

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        return frozenset({"opening_logits", "block_logits", "all_logits"})

    def begin(self, spec: ModelSpec) -> None:
        self._layers = spec.n_layers
        self._seen = PerSequence(lambda canvas, row: _Seen())

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        if request.branches is not None:
            raise ConfigError(
                "cache=DLLMCache keeps the outputs of one canvas per sequence; the sampler asks "
                "for alternative ones (cfg_scale > 0, drafts): use cache=none"
            )
        index, width = np.arange(canvas.width), canvas.width
        inside = index < canvas.length[:, None]
        prompt = index < canvas.prompt_length[:, None]
        seen = self._seen.rows(canvas)
        # Positions that the answer grew by have no outputs yet.
        grown = canvas.length > [note.length for note in seen]
        for row, note in enumerate(seen):
            note.length = int(canvas.length[row])
        fresh_prompt = (canvas.step % self.prompt_interval == 0) | grown
        fresh_response = (canvas.step % self.response_interval == 0) | grown
        whole = np.where(prompt, fresh_prompt[:, None], fresh_response[:, None]) & inside
        pool = ~prompt & ~fresh_response[:, None] & inside
        response = canvas.length - canvas.prompt_length
        count = np.where(fresh_response, 0, (response * self.update_share).astype(np.int64))
        kinds = [
            ForwardKind.REFRESH if both else ForwardKind.STEP
            for both in fresh_prompt & fresh_response
        ]
        slots = torch.from_numpy(np.where(inside, index, -1))
        return [
            Plan(
                kind=kinds[0] if len(set(kinds)) == 1 else tuple(kinds),
                tokens=torch.from_numpy(canvas.tokens[:, :width]),
                positions=slots.clamp(min=0),
                slots=slots,
                fed=self._fed(canvas.length, whole.sum(axis=1) + count),
                padded=not inside.all(),
                logits_for=torch.from_numpy(request.positions),
                partial=Partial(
                    torch.from_numpy(whole),
                    torch.from_numpy(pool),
                    torch.from_numpy(count),
                    self.always_refresh_first_layer,
                ),
            )
        ]

    def _fed(self, length: np.ndarray, partly: np.ndarray) -> np.ndarray:
        """Rows computed, mean over the layers rounded up; never 0, since the forward is made."""
        first = int(self.always_refresh_first_layer)
        rows = first * length + (self._layers - first) * partly
        return np.maximum(-(-rows // self._layers), 1)

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        return []
