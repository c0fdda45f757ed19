"""R2-dLLM (arXiv 2604.18995): three rules that remove redundant steps, after any base rule.

Within one forward, each stage seeing the masks that the ones before it left, all inside the block:
1. base rule (official: threshold 0.9, or factor);
2. confidence cluster: a window of `cluster_size` positions whose masked members have mean
   confidence >= `spatial_threshold` is committed whole (windows with more than `cluster_unmasked`
   decided tokens are skipped; the sweep does not see its own commits);
3. token cluster: a maximal run (>= `run_length`) of masked positions predicting the same token,
   best confidence > `spatial_threshold` (strict), commits that token once;
4. temporal: an arg-max unchanged over `temporal_steps` forwards of the block, with last, mean or
   maximal confidence >= `temporal_threshold`, is committed.
Stages 3 and 4 read a float32 softmax of the raw logits, stage 2 the base's confidence (Dream: in
the logits' dtype, where a bf16 mean of 0.799 passes 0.8).

Authors' setting (all scripts): 0.9; 3, 0.8, 1; confidence; 3, 0.8, last; block 32, gen_length
256, dual cache. LLaDA without cache or with prefix cache is an extension. Dream: base=opening,
shifted_rows=own.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision, HostDecision
from dllm.step.prediction import View
from dllm.step.state import SamplerState, StateField
from samplers.parts.blocks import BlockRows
from samplers.parts.checks import free_commits, in_unit_interval
from samplers.parts.wrapping import Wrapper


@dataclass(frozen=True, kw_only=True)
class R2DLLM(Wrapper):
    cluster_size: int | None
    """Positions of a confidence window (>= 1); null = no confidence clusters."""
    cluster_unmasked: int | None
    """Decided tokens a window may hold at most; null = any number, so that a
    single masked member next to decided text needs spatial_threshold alone."""
    spatial_threshold: float
    """Of both cluster rules, in [0, 1]."""
    token_cluster: Literal["confidence", "mid", "random"] | None
    """Which position of a run is committed: its most confident, its middle, any; null = off."""
    run_length: int
    """Shortest run of a token cluster (>= 2)."""
    temporal_steps: int | None
    """Forwards an arg-max must last (>= 1); null = no temporal rule."""
    temporal_threshold: float
    """In [0, 1]."""
    temporal_value: Literal["last", "mean", "max"]
    """Which confidence of the streak is compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        free_commits(self.base)
        in_unit_interval("spatial_threshold", self.spatial_threshold)
        in_unit_interval("temporal_threshold", self.temporal_threshold)
        for name, low in (
            ("cluster_size", 1),
            ("cluster_unmasked", 0),
            ("run_length", 2),
            ("temporal_steps", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"sampler.{name}={value} must be >= {low}")

    def commits_ahead(self) -> bool:
        return True

    def fields(self) -> tuple[StateField, ...]:
        streak = (
            StateField("streak", ("canvas",), torch.int32, reset="block"),
            StateField("streak_token", ("canvas",), torch.int64, fill=-1, reset="block"),
            StateField("streak_sum", ("canvas",), reset="block"),
            StateField("streak_max", ("canvas",), reset="block"),
        )
        return (*super().fields(), *streak) if self.temporal_steps else super().fields()

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        if not self.temporal_steps or not view.positions.shape[1]:
            return
        q, token = _most_likely(self.transform(view, state))
        at = view.positions.clamp(min=0)
        same = token == state["streak_token"].gather(1, at)
        for name, fresh, going_on in (
            ("streak", torch.ones_like(token), state["streak"].gather(1, at) + 1),
            ("streak_sum", q, state["streak_sum"].gather(1, at) + q),
            ("streak_max", q, torch.maximum(state["streak_max"].gather(1, at), q)),
            ("streak_token", token, token),
        ):
            value = going_on.where(same, fresh.to(going_on.dtype))
            # A forward that did not predict a position says nothing about it.
            value = value.where(view.fresh, state[name].gather(1, at).to(value.dtype))
            state[name] = view.on_canvas(value, state[name])

    def select(self, view: View, state: SamplerState) -> Decision:
        decision = super().select(view, state)
        if not view.positions.shape[1]:
            return decision
        view = self.transform(view, state)
        block = BlockRows(view)
        base = decision.commit
        sweep = self.confidence_clusters(block, view, decision, base)
        token = self.token_clusters(block, view, view.candidates & ~(base | sweep))
        temporal = self.finalised(view, view.candidates & ~(base | sweep | token), state)
        likely = view.top[1]
        return replace(
            decision,
            commit=base | sweep | token | temporal,
            tokens=likely.where(token | temporal, decision.tokens),
            marks={
                **decision.marks,
                "base": base,
                "sweep": sweep,
                "token": token,
                "temporal": temporal,
            },
        )

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        super().committed(canvas, decision, state)
        if not self.temporal_steps:
            return
        for row, changes in enumerate(decision.rows):
            # A position that is masked again begins anew.
            at = np.concatenate((changes.commit_positions, changes.remask_positions))
            state["streak"][row, at] = 0
            state["streak_token"][row, at] = -1
            state["streak_sum"][row, at] = 0
            state["streak_max"][row, at] = 0

    def block_done(self, canvas: Canvas, row: int, state: SamplerState) -> bool:
        # A base with a fixed number of steps has fewer to make.
        return super().block_done(canvas, row, state) or canvas.masked_in_block(row) == 0

    def confidence_clusters(
        self, block: BlockRows, view: View, decision: Decision, base: Bool[Tensor, "batch rows"]
    ) -> Bool[Tensor, "batch rows"]:
        if self.cluster_size is None or self.cluster_size > block.width:
            return torch.zeros_like(base)
        masked = block.dense(view.candidates & ~base, False)
        score = decision.score.masked_fill(~view.candidates, 0)
        dtype = score.dtype
        # bf16 means are accumulated in float32 and rounded once, as torch.mean does.
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        conf = block.dense(score.to(wide), 0) * masked
        windows = masked.unfold(1, self.cluster_size, 1)  # [batch, windows, size]
        members = windows.sum(dim=-1)
        mean = conf.unfold(1, self.cluster_size, 1).sum(dim=-1) / members.clamp(min=1)
        sure = mean.to(dtype) >= self.spatial_threshold
        # A window that sticks out of the block is none.
        sure = sure & block.inside.unfold(1, self.cluster_size, 1).all(dim=-1)
        if self.cluster_unmasked is not None:
            sure = sure & (self.cluster_size - members <= self.cluster_unmasked)
        marked = torch.zeros_like(masked)
        for offset in range(self.cluster_size):
            marked[:, offset : offset + sure.shape[1]] |= sure
        return block.rows(marked & masked)

    def token_clusters(
        self, block: BlockRows, view: View, masked: Bool[Tensor, "batch rows"]
    ) -> Bool[Tensor, "batch rows"]:
        if self.token_cluster is None:
            return torch.zeros_like(masked)
        q, token = _most_likely(view)
        open_, conf, ids = (
            block.dense(masked, False),
            block.dense(q, 0),
            block.dense(token, -1),
        )
        follows = torch.zeros_like(open_)
        follows[:, 1:] = open_[:, 1:] & open_[:, :-1] & (ids[:, 1:] == ids[:, :-1])
        run = (~follows).cumsum(dim=1) - 1  # number of the run each position belongs to
        place = torch.arange(block.width, device=conf.device).expand_as(run)
        length = torch.zeros_like(run).scatter_add(1, run, open_.long()).gather(1, run)
        best = torch.zeros_like(conf).scatter_reduce(1, run, conf, "amax").gather(1, run)
        start = _first(run, place, ~follows)
        if self.token_cluster == "confidence":
            chosen = place == _first(run, place, conf == best)
        elif self.token_cluster == "mid":
            chosen = place == start + length // 2
        else:
            draw = block.uniform(view).gather(1, start.clamp(max=block.width - 1))
            chosen = place == start + (draw * length).long()
        sure = open_ & (length >= self.run_length) & (best > self.spatial_threshold)
        return block.rows(chosen & sure)

    def finalised(
        self, view: View, masked: Bool[Tensor, "batch rows"], state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if not self.temporal_steps:
            return torch.zeros_like(masked)
        at = view.positions.clamp(min=0)
        count = state["streak"].gather(1, at)
        if self.temporal_value == "last":
            value = _most_likely(view)[0]
        elif self.temporal_value == "mean":
            value = state["streak_sum"].gather(1, at) / count.clamp(min=1)
        else:
            value = state["streak_max"].gather(1, at)
        return masked & (count >= self.temporal_steps) & (value >= self.temporal_threshold)


def _most_likely(
    view: View,
) -> tuple[Float[Tensor, "batch rows"], Int[Tensor, "batch rows"]]:
    """Probability (float32 softmax) and token of each row's arg-max."""
    top, token = view.top
    logits = view.logits.float()
    return (logits - top.float()[..., None]).exp_().sum(dim=-1).reciprocal_(), token


def _first(run: Tensor, place: Tensor, where: Tensor) -> Tensor:
    """Per position, the first place of its run at which `where` holds."""
    far = torch.full_like(place, place.shape[1])
    return far.scatter_reduce(1, run, place.where(where, far), "amin").gather(1, run)
