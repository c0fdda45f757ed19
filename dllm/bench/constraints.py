"""Single checks of a canvas under the JSON grammar, with a vocabulary of full size."""

import gc
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, get_args

import numpy as np

from dllm.bench.sheet import Line, Sheet
from dllm.constraints.canvases import CanvasChecker
from dllm.constraints.json_schema.translate import read_json_schema
from dllm.constraints.vocabulary import Vocabulary


VOCABULARY = 126_349
"""LLaDA's."""
CANVAS = 256
CANVASES = 10
GAPS = 8
BLOCK = 32
Order = Literal["blocks", "anywhere"]
MASK, END = 256, 257
PUNCTUATION = ('{"', '":', '":"', '","', '"}', '"]', '["', "},{", '": ', '", "', "[{", "}]", "],")


def sheet() -> Sheet:
    return Sheet(
        "One check of a canvas under a grammar",
        [
            f"Any JSON value, an invented vocabulary of {VOCABULARY:,} tokens, canvases of "
            f"{CANVAS} tokens, three in ten proposals wrong; CPU time of the checking thread, "
            f"{CANVASES} canvases per line. blocks: all masked at first, blocks of 32 from left to "
            "right, positions of a block in random order; anywhere: up to 8 gaps of up to 8 tokens "
            "in a text that is there otherwise.",
            "Nothing known: the same engine on the same canvas once everything that earlier checks "
            "have found out about texts is dropped (30 checks); what is worked out once per "
            "grammar stays. Collector: the part of the mean that Python's garbage collector takes. "
            "The aims: 1 ms at the median, 20 ms at the 99th percentile, 10 times cheaper than a "
            "check that knows nothing.",
        ],
        {
            "median ms": "{:.3f}",
            "checks": "{:.0f}",
            "99th percentile ms": "{:.2f}",
            "mean ms": "{:.3f}",
            "collector, mean ms": "{:.3f}",
            "nothing known, median ms": "{:.2f}",
            "nothing known, mean ms": "{:.2f}",
            "ratio of medians": "{:.1f}",
        },
        "median ms",
        _lines(),
    )


def _lines() -> Iterator[Line]:
    for order in get_args(Order):
        t = measure(order, CANVASES)
        yield Line(
            order,
            {
                "median ms": 1e3 * t.median,
                "checks": t.proposals,
                "99th percentile ms": 1e3 * t.p99,
                "mean ms": 1e3 * t.mean,
                "collector, mean ms": 1e3 * t.collection,
                "nothing known, median ms": 1e3 * t.full_median,
                "nothing known, mean ms": 1e3 * t.full,
                "ratio of medians": t.full_median / t.median,
            },
        )


@dataclass(frozen=True)
class Timing:
    """Seconds per check, over all proposals."""

    proposals: int
    median: float
    p99: float
    mean: float
    full: float
    """Mean of the same checks with nothing known beforehand."""
    full_median: float
    collection: float
    """Part of the mean that Python's garbage collector takes, which runs between the checks."""


def measure(order: Order, canvases: int, seed: int = 0) -> Timing:
    """Canvases are filled; three in ten proposals are wrong. CPU time of this thread."""
    rng = random.Random(seed)
    vocabulary = full_vocabulary(rng)
    ids = {text: token for token, text in enumerate(vocabulary.texts) if text}
    checker = CanvasChecker(read_json_schema(True), vocabulary, MASK, [END], CANVAS)
    seconds, fresh, collected = [], [], []
    for _ in range(canvases):
        shown = list(proposals(order, answer(rng, ids), vocabulary, rng))
        for proposal in shown:
            with collecting(collected):
                started = time.thread_time()
                checker.fits(proposal)
                seconds.append(time.thread_time() - started)
        for proposal in rng.sample(shown, 3):
            checker.forget()
            started = time.thread_time()
            checker.fits(proposal)
            fresh.append(time.thread_time() - started)
    ordered = sorted(seconds)
    return Timing(
        len(ordered),
        median(ordered),
        ordered[int(0.99 * len(ordered))],
        fmean(seconds),
        fmean(fresh),
        median(fresh),
        sum(collected) / len(seconds),
    )


@contextmanager
def collecting(seconds: list[float]) -> Iterator[None]:
    """Notes what each run of the garbage collector takes."""
    started = 0.0

    def note(phase: str, _: object) -> None:
        nonlocal started
        if phase == "start":
            started = time.thread_time()
        else:
            seconds.append(time.thread_time() - started)

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)


def full_vocabulary(rng: random.Random) -> Vocabulary:
    """All bytes, mask and end, punctuation, numbers, and invented words with and without a blank
    before them."""
    texts: list[bytes | None] = [bytes([byte]) for byte in range(256)]
    texts += [None, None, *(text.encode() for text in PUNCTUATION)]
    texts += [str(number).encode() for number in range(10, 1000)]
    known = {*texts}
    while len(texts) < VOCABULARY:
        word = "".join(rng.choices("etaoinshrdlucmfwypvbgkqjxz", k=rng.randint(2, 10)))
        text = (rng.choice(("", " ")) + word).encode()
        if text not in known:
            known.add(text)
            texts.append(text)
    return Vocabulary(tuple(texts))


def answer(rng: random.Random, ids: dict[bytes, int]) -> np.ndarray:
    """A JSON value as tokens, longest first, followed by end tokens."""
    words = [text.decode() for text in rng.sample(sorted(ids), 400) if text.isalpha()]

    def value(depth: int) -> object:
        kind = rng.random()
        if depth == 0 or kind < 0.5:
            return rng.choice((rng.randint(0, 9999), " ".join(rng.choices(words, k=3)), None, True))
        if kind < 0.75:
            return [value(depth - 1) for _ in range(rng.randint(1, 4))]
        return {rng.choice(words): value(depth - 1) for _ in range(rng.randint(1, 4))}

    while True:
        text = json.dumps({word: value(3) for word in rng.sample(words, 6)}).encode()
        tokens, at = [], 0
        while at < len(text):
            length = next(n for n in range(12, 0, -1) if text[at : at + n] in ids)
            tokens.append(ids[text[at : at + length]])
            at += length
        if CANVAS * 3 // 4 <= len(tokens) <= CANVAS:
            return np.array(tokens + [END] * (CANVAS - len(tokens)))


def proposals(
    order: Order, whole: np.ndarray, vocabulary: Vocabulary, rng: random.Random
) -> Iterator[np.ndarray]:
    """The canvas with every token that is proposed for it, right or wrong.

    `blocks`: all masked, blocks of 32 from left to right, a block's positions in random order;
    `anywhere`: up to 8 gaps of up to 8 tokens in a text that is there otherwise.
    """
    canvas = np.full(CANVAS, MASK)
    if order == "blocks":
        blocks = [list(range(begin, begin + BLOCK)) for begin in range(0, CANVAS, BLOCK)]
    else:
        canvas = whole.copy()
        for begin in rng.sample(range(CANVAS - 8), rng.randint(1, GAPS)):
            canvas[begin : begin + rng.randint(1, 8)] = MASK
        blocks = [np.flatnonzero(canvas == MASK).tolist()]
    for block in blocks:
        rng.shuffle(block)
        for position in block:
            while rng.random() < 0.3:
                wrong = canvas.copy()
                wrong[position] = rng.randrange(VOCABULARY)
                if vocabulary.texts[wrong[position]]:
                    yield wrong
            canvas[position] = whole[position]
            yield canvas.copy()
