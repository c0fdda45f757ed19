"""FreeDave (arXiv 2510.00294): drafts from one prediction, verified together by the next forward.

Any deterministic, memoryless rule `base` is reproduced. From the prediction of the accepted state
the rule's own step is certain and committed at once; further drafts add the next best 1, 2, ...,
draft_steps - 1 positions. One forward evaluates all of them; draft j follows draft i if it is
what the rule makes of draft i (`verify`), and the longest such chain is accepted. Base
low_confidence with steps = gen_length is the paper's method, base threshold is FreeDave++; base
opening is Dream's cached variant.

Lossless (tokens and order of `base`, never more forwards) with verify.match=exact, greedy
proposals, the same cache, official_forwards=false, a base whose step depends on canvas and
prediction alone (no schedule over several steps), and batch-invariant numerics (float32 or wider;
bf16 batches flip near-ties). Lossy: `subset` with a base that commits several positions (official
on LLaDA and Dream). `eager` also drafts blocks ahead; it needs block-causal attention (with full
attention the official code crashes or is lossy) and compares (block, score) lexicographically
where the official bf16 sum is inexact. It is lossless and never slower under eos=none only: a
policy that looks at complete blocks (fill_after_block and its kind) does not see the end token of a
block that was completed ahead, so that the answer goes on where `base` ends it; under
stop_until_eos and cut the answer is the same, the number of forwards is not promised.

Authors' settings: LLaDA d=4, Dream d=8, block 32, dual cache, threshold 0.95 for ++; TraDo / SDAR
d=8, block 4, eager, 0.90. Their confidence is a softmax in the logits' dtype.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Region
from dllm.step.state import SamplerState, StateField
from samplers.parts.branches import Branches, beside, picked
from samplers.parts.opening import OpeningToken
from samplers.parts.proposers import Greedy
from samplers.parts.regions_ahead import BlocksAhead
from samplers.parts.verifiers import Verifier
from samplers.parts.wrapping import Wrapper


@dataclass(frozen=True, kw_only=True)
class FreeDave(Wrapper):
    draft_steps: int
    """Canvases evaluated per forward, the certain one included (>= 1; 1 = no drafts)."""
    eager: bool
    """Draft the blocks after the current one, too (block-causal models)."""
    verify: Verifier
    official_forwards: bool
    """Also make the forwards that the official code makes in vain: repeated drafts where fewer
    positions are left than drafts, and one more forward of a block that a certain step of several
    positions completed."""
    region: Region = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draft_steps < 1:
            raise ConfigError(f"sampler.draft_steps={self.draft_steps} must be >= 1")
        rule = type(self.base).__name__
        if self.base.fields():
            raise ConfigError(
                f"sampler.base={rule} remembers earlier steps: drafts can't follow it"
            )
        if "guidance" in self.base.needs:
            raise ConfigError(
                f"sampler.base={rule} is guided (cfg_scale > 0): drafts take the place of its "
                "canvases without the prompt"
            )
        if self.draft_steps > 1:
            object.__setattr__(self, "needs", self.base.needs | {"hypotheses"})
        if not isinstance(self.proposer, Greedy):
            raise ConfigError(
                f"sampler.base.proposer={type(self.proposer).__name__} draws at random: use greedy"
            )
        if self.eager:
            object.__setattr__(self, "region", BlocksAhead(self.base.region, self.draft_steps))

    def fields(self) -> tuple[StateField, ...]:
        return (
            StateField("draft_token", ("canvas",), torch.int64),
            StateField("draft_score", ("canvas",), torch.float64, fill=-torch.inf),
            # Masks of the accepted state, before the rule's own step.
            StateField("open", (), torch.int64),
        )

    def budget(self) -> None:
        """A round holds several steps of the rule."""
        return None

    def validate(self, gen_length: int) -> None:
        super().validate(gen_length)
        steps = self.base.scheduled_steps(gen_length)
        if steps is not None and steps != gen_length:
            raise ConfigError(
                f"sampler.base.steps={steps} must be gen_length={gen_length}: drafts grow by one "
                "position"
            )

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        if self.eager and spec.attention != "block_causal":
            raise ConfigError(
                f"sampler.eager=true needs block-causal attention, the model's is "
                f"{spec.attention}: use sampler.eager=false"
            )

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        request = super().plan(canvas, eligible, state)
        if self.eager:
            # The current block is fed even when only blocks ahead have masks.
            wanted = eligible.copy()
            wanted[np.arange(canvas.batch), canvas.block_start] = True
            request = replace(request, positions=pad_positions(wanted))
        drafts = self._drafts(canvas, eligible, state)
        if not drafts.shape[1]:
            return request
        return replace(request, branches=beside(canvas, drafts), droppable=True)

    def _drafts(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Int[np.ndarray, "batch extra canvas"]:
        """Nested canvases, each one position further; -1 = this sequence has fewer."""
        limit = self.verify.drafts(self.draft_steps, canvas.batch)
        token = state["draft_token"].cpu().numpy()
        score = state["draft_score"].cpu().numpy()
        orders = [
            _allowed(canvas, row, self._order(canvas, eligible, score, row)[:limit], token[row])
            for row in range(canvas.batch)
        ]
        counts = [len(order) for order in orders]
        if self.official_forwards:
            still_open = state["open"].cpu().numpy() * (canvas.step_in_block > 0)
            counts = np.clip(still_open - 1, 0, limit)
        drafts = np.full((canvas.batch, max(counts), canvas.capacity), -1, np.int64)
        for row, order in enumerate(orders):
            draft = canvas.tokens[row].copy()
            for number in range(counts[row]):
                if number < len(order):
                    draft[order[number]] = token[row, order[number]]
                drafts[row, number] = draft
        return drafts

    def _order(
        self, canvas: Canvas, eligible: np.ndarray, score: np.ndarray, row: int
    ) -> Int[np.ndarray, "n"]:
        """Masked positions from the best draft to the worst; none before the block's prediction."""
        if canvas.step_in_block[row] == 0:
            return np.zeros(0, dtype=np.int64)
        at = eligible[row].nonzero()[0]
        block = at // canvas.attention_block[row] if self.eager else np.zeros_like(at)
        order = np.lexsort((at, -score[row, at], block))
        return at[order][score[row, at[order]] > -np.inf]

    def select(self, view: View, state: SamplerState) -> Decision:
        if not view.positions.shape[1]:
            decision = super().select(view, state)
            return replace(decision, updates={"open": torch.zeros_like(state["open"])})
        branches = Branches.of(view)
        drafts, sequences = branches.tokens, branches.as_sequences()
        if self.eager:
            first = _leftmost_block(sequences)
            sequences = replace(sequences, candidates=sequences.candidates & first)
        step = self.base.select(sequences, state)
        commit, tokens, score = map(branches.split, (step.commit, step.tokens, step.score))
        best = self.verify.longest_chain(drafts, tokens.where(commit, drafts), view.canvas.mask_id)
        accepted, following, tokens, score = (
            picked(part, best) for part in (drafts, commit, tokens, score)
        )
        drafted = view.candidates & (accepted != view.canvas.mask_id)
        still_open = view.candidates & (accepted == view.canvas.mask_id)
        if isinstance(self.base, OpeningToken):
            # The opening token belongs to the state that drafts start from.
            still_open &= ~(following & view.column(view.canvas.step_in_block == 0))
        done, marks = None, {"drafted": drafted}
        if self.eager:
            inside = view.positions < view.column(view.canvas.block_end)
            inside = inside & (view.positions >= 0)
            done = ~((accepted == view.canvas.mask_id) & inside).any(dim=1)
            marks["ahead"] = following & ~inside
        return Decision(
            commit=drafted | following,
            tokens=accepted.where(drafted, tokens),
            score=state["draft_score"].gather(1, view.positions.clamp(min=0)).where(drafted, score),
            block_done=done,
            adopt=best,
            marks=marks,
            updates={
                "open": still_open.sum(dim=1),
                "draft_token": view.on_canvas(tokens, state["draft_token"]),
                # A row that was not computed proposes no draft.
                "draft_score": view.on_canvas(
                    score.double().masked_fill(~view.fresh, -torch.inf), state["draft_score"]
                ),
            },
        )

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        complete = canvas.masked_in_block(row) == 0
        if self.official_forwards and canvas.step_in_block[row]:
            complete = complete and int(state["open"][row]) <= 1
        if not self.eager or canvas.block_end[row] >= canvas.length[row]:
            return complete
        # A complete block is verified once more, which also predicts the blocks ahead.
        return complete and canvas.step_in_block[row] == 0


def _allowed(
    canvas: Canvas, row: int, order: Int[np.ndarray, "n"], token: Int[np.ndarray, "canvas"]
) -> Int[np.ndarray, "m"]:
    """The drafts before the first that a constraint would refuse on top of those before it: the
    rule would go on with another token."""
    if canvas.legality[row] is None:
        return order
    drafted = canvas.take(row)
    for number, position in enumerate(order.tolist()):
        allowed = drafted.allowed(0, position)
        if allowed is not None and not allowed[token[position]]:
            return order[:number]
        drafted.tokens[0, position] = token[position]
    return order


def _leftmost_block(view: View) -> Bool[Tensor, "batch rows"]:
    """Rows of the first block that still holds a candidate."""
    size = view.column(view.canvas.attention_block)
    block = view.positions // size
    first = block.where(view.candidates, view.canvas.capacity).amin(dim=1, keepdim=True)
    return block == first
