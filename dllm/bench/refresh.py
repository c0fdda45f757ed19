"""What a token costs on a long canvas, the refreshes of its block included.

The first block is decoded to its end on the model with LLaDA's vocabulary, once with a long
generation region behind it and once with a short one, by a fixed number of tokens per step: both
make the same number of forwards.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from dllm.bench.naive import BLOCK, large
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.config import build, choices, compose
from dllm.engine.session import Session
from dllm.engine.setting import Setting
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt


LENGTHS = 256, 2048
"""Of the generation."""
TOKENS = 4
"""Per step."""


def sheet() -> Sheet:
    short, long = LENGTHS
    return Sheet(
        "The cost of a token and the length of the canvas",
        [
            f"The first block of {BLOCK} at generation {long:,} against {short:,}, refresh and all "
            f"steps: {TOKENS} tokens per step, prompt 128, batch 1, random weights, 8 layers of "
            "512, a vocabulary of 126,464, float32. The aim for the dual and the window cache: at "
            "most 1.5 times."
        ],
        {
            "times dearer": "{:.2f}",
            f"ms per token at {short:,}": "{:.1f}",
            f"ms per token at {long:,}": "{:.1f}",
        },
        "times dearer",
        _lines(),
    )


def _lines() -> Iterator[Line]:
    model, (prompt,) = large()
    for cache, timing in measure(model, prompt.tokens, LENGTHS):
        short, long = (1e3 * seconds / BLOCK for seconds in (timing.reference, timing.ours))
        columns = [f"ms per token at {length:,}" for length in LENGTHS]
        values = dict(zip(columns, (short, long), strict=True))
        yield faster(f"cache={cache}", timing, "times dearer", **values)


def measure(
    model: Transformer, tokens: Sequence[int], lengths: tuple[int, int], repeats: int = 3
) -> Iterator[tuple[str, Ratio]]:
    """Every cache that goes with the model and a fixed number of tokens per step."""
    for cache in choices("cache"):
        settings = {length: setting(model, cache, length) for length in lengths}
        try:
            for parts in settings.values():
                parts.check_parts()
        except ConfigError:
            continue
        short, long = (
            partial(block, parts, Prompt(str(length), tuple(tokens), length))
            for length, parts in settings.items()
        )
        yield cache, alternate(long, short, repeats)


def setting(model: Transformer, cache: str, length: int) -> Setting:
    """`TOKENS` per step of a generation of this length."""
    options = ["sampler=low_confidence", f"sampler.steps={length // TOKENS}", f"cache={cache}"]
    config = compose(options)
    sampler, policy = build(config.sampler, "sampler"), build(config.cache, "cache")
    return Setting(Predictor(model), sampler, policy)


def block(setting: Setting, prompt: Prompt) -> int:
    """Decodes the first block; returns the number of steps."""
    session, written, steps = Session(setting), 0, 0
    session.submit(prompt)
    while written < BLOCK:
        ((_, change),) = session.step().written
        written, steps = written + len(change.positions), steps + 1
    return steps
