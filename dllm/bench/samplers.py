"""Decision time per step of every rule against plain threshold decoding, at LLaDA's vocabulary.

Batch 1, one block of 32 masks, float32 logits given: what is timed is all between the model's
logits and the decision on the host. Both sides see the same logits; half of the positions are sure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from omegaconf import DictConfig

from dllm.bench.ratio import alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.config import build, choices, compose
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
REPEATS = 15


def sheet(names: Sequence[str]) -> Sheet:
    """Of the named rules, of all that can be measured where none is named. Raises `ConfigError` for
    a named one that can't."""
    found: dict[str, Sampler] = {}
    left_out: list[str] = []
    for name in names or choices("sampler"):
        try:
            found[name] = _alone(name)
        except ConfigError as error:
            if names:
                raise ConfigError(f"{name} is not measured: {error}") from None
            left_out.append(name)
    text = (
        f"All between the model's logits and the decision on the host: batch 1, block {BLOCK}, "
        f"vocabulary {VOCABULARY:,}, float32 logits given, half of the positions sure; each rule "
        "in turn with plain threshold."
    )
    if left_out:
        text += (
            " Left out, since they lay out blocks of their own or decide by more than one forward "
            f"of one canvas and model: {', '.join(left_out)}."
        )
    return Sheet(
        "Decision time per step",
        [text],
        {"times threshold": "{:.2f}", "ms": "{:.1f}"},
        "times threshold",
        _lines(found),
    )


def _lines(samplers: Mapping[str, Sampler]) -> Iterator[Line]:
    logits = _logits()
    reference = _step(_alone("threshold"), logits)
    for name, sampler in samplers.items():
        timing = alternate(_step(sampler, logits), reference, REPEATS)
        yield faster(name, timing, "times threshold", ms=1e3 * timing.ours)


def _alone(name: str) -> Sampler:
    """The rule. Raises `ConfigError` for one that does not decode blocks of masks by what one
    canvas and one model say."""
    config = compose([f"sampler={name}"]).sampler
    if not isinstance(config.get("region"), DictConfig) or "block_length" not in config.region:
        raise ConfigError(f"sampler={name} lays out blocks of its own")
    sampler = build(config, "sampler")
    sampler.validate(BLOCK)
    if further := [*needs(sampler) & {"reference", "hypotheses"}, *sampler.models]:
        raise ConfigError(f"sampler={name} needs {', '.join(sorted(further))}")
    if sampler.noise != "mask":
        raise ConfigError(f"sampler={name} decodes no masks")
    return sampler


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
