"""Decision time per step of every rule against plain threshold decoding, at LLaDA's vocabulary.

Batch 1, one block of 32 masks, float32 logits given: what is timed is all between the model's
logits and the decision on the host. Both sides see the same logits; half of the positions are sure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from omegaconf import DictConfig

from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.config import build, compose
from dllm.engine.legality import needs
from dllm.errors import ConfigError
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.decision import to_host
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


VOCABULARY, BLOCK, PROMPT = 126_464, 32, 16
MASK, EOS = 126_336, 126_081
FAVOURITES = 1000, 100_000


@dataclass(frozen=True)
class Row:
    """One rule in the table."""

    name: str
    timing: Ratio


def sheet(names: Sequence[str]) -> Sheet:
    return Sheet(
        "Decision time per step",
        [
            f"All between the model's logits and the decision on the host: batch 1, block {BLOCK}, "
            f"vocabulary {VOCABULARY:,}, float32 logits given, half of the positions sure; each "
            "rule in turn with plain threshold."
        ],
        {"times threshold": "{:.2f}", "ms": "{:.1f}"},
        "times threshold",
        _lines(names),
    )


def _lines(names: Sequence[str]) -> Iterator[Line]:
    for row in measure(names):
        yield faster(row.name, row.timing, "times threshold", ms=1e3 * row.timing.ours)


def measure(names: Sequence[str], repeats: int = 15) -> Iterator[Row]:
    """One row per sampler that decodes blocks of masks by what one canvas and one model say."""
    logits = _logits()
    reference = _step(_sampler("threshold"), logits)
    for name in names:
        try:
            sampler = _sampler(name)
            sampler.validate(BLOCK)
        except ConfigError:
            continue
        further = needs(sampler) & {"reference", "hypotheses"}
        if further or sampler.models or sampler.noise != "mask":
            continue
        timing = alternate(_step(sampler, logits), reference, repeats)
        yield Row(name, timing)


def _sampler(name: str) -> Sampler:
    config = compose([f"sampler={name}"]).sampler
    if not isinstance(config.get("region"), DictConfig) or "block_length" not in config.region:
        raise ConfigError(f"sampler={name} brings its own region")
    return build(config, "sampler")


def _logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, BLOCK, VOCABULARY, generator=generator)
    favourites = torch.randint(*FAVOURITES, (BLOCK,), generator=generator)
    lift = torch.where(torch.arange(BLOCK) % 2 == 0, 18.0, 12.0)
    logits[0, torch.arange(BLOCK), favourites] = lift
    return logits


def _step(sampler: Sampler, logits: torch.Tensor) -> Callable[[], object]:
    """One decision on a fresh view; history goes on from call to call."""
    length = PROMPT + BLOCK
    canvas = Canvas.empty(length, MASK, (EOS,))
    layout = Layout(length, length, length, 0)
    prompt = Prompt("bench", tuple(range(PROMPT)), BLOCK)
    canvas.append(prompt, layout, torch.Generator().manual_seed(0))
    canvas.enter_block(0, PROMPT, length)
    state = SamplerState(sampler.fields(), length, "cpu")
    state.append()
    eligible = canvas.masked()

    def decide() -> object:
        positions = sampler.plan(canvas, eligible, state).positions
        candidates = torch.from_numpy(np.take_along_axis(eligible, positions, axis=1))
        view = View(canvas, torch.from_numpy(positions), logits, candidates)
        sampler.observe(view, state)
        decision = sampler.select(view, state)
        return to_host(decision, positions, candidates, not sampler.may_commit_nothing, None)

    return decide
