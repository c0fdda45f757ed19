"""Written-down predictions: confidences in, committed positions out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tiny_decoding import EOS, MASK, SPEC, WrittenPredictor, canvas_of, decode_written, sampler
from torch import Tensor

from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import Decision
from dllm.step.outcome import Outcome
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


PROMPT = (5, 6, 7)
DECIDED = 9
"""Token of every position that is decided already."""
A = (0.97, 0.88, 0.76, 0.74, 0.60, 0.91, 0.55, 0.80)
"""A block of eight confidences, none of which ties."""


@dataclass(frozen=True)
class Twin:
    """A decided position whose token its twin gives this probability."""

    probability: float


Cell = float | Twin | None
"""Confidence of a masked position; a checked decided one; None = simply decided."""


def rule(name: str, **options: object) -> Sampler:
    return sampler(f"sampler={name}", *(f"sampler.{k}={v}" for k, v in options.items()))


def proposal(index: int) -> int:
    """The most likely token of the position with this index."""
    return 10 + index % 10


def spread(top: float, token: int, vocabulary: int = SPEC.vocab_size) -> Tensor:
    """Logits with probability `top` for a token and the rest shared evenly."""
    rest = torch.full((vocabulary,), (1 - top) / (vocabulary - 1), dtype=torch.float64)
    rest[token] = top
    return rest.log()


def top_for_entropy(h: float) -> float:
    """Probability of the most likely token of a spread distribution with this entropy."""
    low, high = 1 / SPEC.vocab_size, 1.0
    for _ in range(60):
        p = (low + high) / 2
        rest = 1 - p
        entropy = -p * math.log(p) - rest * math.log(rest / (SPEC.vocab_size - 1))
        low, high = (low, p) if entropy < h else (p, high)
    return high


@dataclass
class Step:
    """A rule before one decision over one row per sequence."""

    rule: Sampler
    canvas: Canvas
    view: View
    state: SamplerState

    def decide(self) -> Decision:
        self.rule.observe(self.view, self.state)
        return self.rule.select(self.view, self.state)


def step_of(
    rule: Sampler,
    *rows: Sequence[Cell],
    logits: Mapping[int, Sequence[float]] | None = None,
    step: int = 0,
    masks: int | None = None,
) -> Step:
    """All rows form one block each; `logits` replaces the distribution of positions (row 0)."""
    answers = [[DECIDED if isinstance(c, Twin) or c is None else MASK for c in row] for row in rows]
    canvas = canvas_of(*answers, prompt=PROMPT)
    state = SamplerState(rule.fields(), canvas.capacity, "cpu")
    for row in range(len(rows)):
        state.append()
        canvas.enter_block(row, len(PROMPT), len(PROMPT) + len(rows[row]))
        canvas.step_in_block[row] = canvas.step[row] = step
        if masks is not None:
            canvas.block_masks[row] = masks
    start, end = canvas.block_start[:, None], canvas.block_end[:, None]
    index = np.arange(canvas.capacity)
    eligible = canvas.masked() & (index >= start) & (index < end)
    positions = rule.plan(canvas, eligible, state).positions
    table = torch.zeros(*positions.shape, SPEC.vocab_size, dtype=torch.float64)
    for row, at in zip(*np.nonzero(positions >= 0), strict=True):
        offset = int(positions[row, at]) - len(PROMPT)
        cell = rows[row][offset]
        if logits is not None and row == 0 and offset in logits:
            table[row, at] = torch.tensor(logits[offset], dtype=torch.float64)
        elif isinstance(cell, Twin):
            table[row, at] = spread(cell.probability, DECIDED)
        elif cell is not None:
            table[row, at] = spread(cell, proposal(offset))
    candidates = np.take_along_axis(eligible, positions, axis=1) & (positions >= 0)
    view = View(canvas, torch.from_numpy(positions), table, torch.from_numpy(candidates))
    return Step(rule, canvas, view, state)


def offsets(mask: Tensor, view: View) -> list[set[int]]:
    """Chosen rows as positions within the answer."""
    return [
        set((view.positions[row][chosen] - len(PROMPT)).tolist()) for row, chosen in enumerate(mask)
    ]


def commits(rule: Sampler, *rows: Sequence[Cell], **options: int) -> list[set[int]]:
    """Positions that one step commits, per row."""
    step = step_of(rule, *rows, **options)
    return offsets(step.decide().commit, step.view)


def one(rule: Sampler, row: Sequence[Cell], **options: int) -> set[int]:
    """Positions that one step commits in a single sequence."""
    return commits(rule, row, **options)[0]


def picked(rule: Sampler, *scores: float, **options: int) -> set[int]:
    """Positions that the rule chooses for exactly these scores."""
    step = step_of(rule, [0.5] * len(scores), **options)
    chosen = rule.choose(torch.tensor([scores], dtype=torch.float64), step.view, step.state)
    return offsets(chosen, step.view)[0]


def steps(name: str, sure: tuple[float, ...] = A, **options: object) -> list[list[int]]:
    """Committed positions per forward under constant predictions."""
    written = rule(name, **{k.replace("__", "."): v for k, v in options.items()})
    answer = [proposal(i) for i in range(len(sure))]
    trace = decode_written(written, answer, sure, record=True).trace
    assert trace is not None
    return [sorted(step.positions) for step in trace.steps]


def toy(rule: Sampler, true_length: int, most: int = 256, positions: int = 512) -> Outcome:
    """A model that predicts 9 up to `true_length` and the end token beyond, each with 0.95."""
    answer = [9] * true_length + [EOS] * (most - true_length)
    spec = replace(SPEC, max_positions=positions)
    predictor = WrittenPredictor(answer, [0.95] * most, len(PROMPT), spec)
    decoder = Decoder(predictor, rule, NoCache(), record=True)  # type: ignore[arg-type]
    return next(decoder.decode([Prompt("one", PROMPT, most)]))


def in_float32(view: View) -> View:
    return replace(view, logits=view.logits.float())
