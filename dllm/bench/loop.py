"""What the loop costs: decoding against the bare forwards that the same decoding made.

Both sides compute the same logits from the same tokens; the difference is everything but the model:
canvas, plan, masks, row lookup, rule, trace.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig

from dllm.bench.machine import Machine, settle
from dllm.bench.naive import huge, large, tiny
from dllm.bench.options import chosen
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy


VARIANTS = (["sampler=threshold"], ["sampler=localleap"], ["sampler=threshold", "cache=dual"])
"""What is measured where no options are given."""


MODELS = {"tiny-llada": tiny, "8x512": large}
PARTS = ("sampler", "cache", "eos")
"""What may be chosen."""


def sheet(options: Sequence[str], machine: Machine) -> Sheet:
    if foreign := [key for key in chosen(options) if key not in PARTS]:
        raise ConfigError(
            f"{foreign[0]}: loop measures models and prompts of its own; given may be options of "
            f"{', '.join(PARTS)}"
        )
    return Sheet(
        "The loop's own time",
        [
            "Decoding at batch 1 in turn with the bare forwards that it made: what it takes beside "
            "them, of the forwards' time. tiny-llada: twelve of its tasks, generation 64. 8x512: "
            "random weights, 8 layers of 512, a vocabulary of 126,464, prompt 128, generation 64. "
            "The aims: at most 10 % on tiny-llada, 2 % at 8x512. On a GPU: LLaDA-8B's shape in "
            "bfloat16, random weights, prompt 128, generation 64; each forward is waited for."
        ],
        {
            "own time, % of the forwards": "{:.1f}",
            "forwards": "{:.0f}",
            "decoding, ms per forward": "{:.3f}",
            "forward, ms": "{:.3f}",
        },
        "own time, % of the forwards",
        _lines([options] if options else VARIANTS, machine.device),
    )


def _lines(variants: Sequence[Sequence[str]], device: str) -> Iterator[Line]:
    for name, made in (MODELS if device == "cpu" else {"LLaDA-8B's shape": huge}).items():
        model, prompts = made()
        for options in variants:
            timing, forwards = measure(model, prompts, compose(options))
            yield Line(
                f"{name}: {' '.join(options)}",
                {
                    "own time, % of the forwards": 100 * (timing.ratio - 1),
                    "forwards": forwards,
                    "decoding, ms per forward": 1e3 * timing.ours / forwards,
                    "forward, ms": 1e3 * timing.reference / forwards,
                },
                (100 * (timing.low - 1), 100 * (timing.high - 1)),
            )


def measure(
    model: Transformer, prompts: Sequence[Prompt], config: DictConfig, repeats: int = 7
) -> tuple[Ratio, int]:
    """Decode time over forward time, and the number of forwards in one repetition."""
    decoder = Decoder(
        Predictor(model),
        build(config.sampler, "sampler"),
        build(config.cache, "cache"),
        EosPolicy(config.eos),
        record=True,
    )
    with _recorded(model) as calls:
        list(decoder.decode(prompts))

    def forwards() -> None:
        with torch.inference_mode():
            for method, arguments in calls:
                method(*arguments)
                if method == model.logits:
                    settle(model.device.type)

    ratio = alternate(lambda: list(decoder.decode(prompts)), forwards, repeats)
    return ratio, sum(method == model.hidden for method, _ in calls)


@contextmanager
def _recorded(model: Transformer) -> Iterator[list[tuple[Any, tuple[Any, ...]]]]:
    """Collects every call of the model's two forward methods with its arguments."""
    calls: list[tuple[Any, tuple[Any, ...]]] = []
    hidden, logits = model.hidden, model.logits

    def spy(method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append((method, arguments))
            return method(*arguments)

        return call

    model.hidden, model.logits = spy(hidden), spy(logits)  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del model.hidden, model.logits
