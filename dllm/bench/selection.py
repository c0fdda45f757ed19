"""Reading a step's scores off the logits, against one plain pass over them.

Plain is `logsumexp` and `max` in float32: what an arg-max with its probability needs at least. Ours
are `dllm.step.scores`, whose float64 scores are compared with those of a whole float64 copy first.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from dllm.bench.machine import Machine, waiting
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet, faster
from dllm.errors import RunError
from dllm.step import scores


VOCABULARY, ROWS = 126_464, 32
CLOSE = 1e-6


Scores = Mapping[str, Tensor]
"""What is known of each row, by name."""


def top(logits: Tensor) -> Scores:
    probability = scores.top_confidence(logits, "float64")
    return {"token": scores.highest(logits)[1], "probability": probability}


def entropy(logits: Tensor) -> Scores:
    return {"token": scores.highest(logits)[1], "entropy": scores.entropy(logits, "float64")}


def margin(logits: Tensor) -> Scores:
    return {"token": scores.highest(logits)[1], "margin": scores.margin(logits, "float64")}


def all_four(logits: Tensor) -> Scores:
    return {"token": scores.highest(logits)[1], **vars(scores.summary(logits, "float64"))}


KINDS: Mapping[str, Callable[[Tensor], Scores]] = {
    "arg-max and its probability": top,
    "arg-max and entropy": entropy,
    "arg-max and margin": margin,
    "all four": all_four,
}


def sheet(machine: Machine) -> Sheet:
    return Sheet(
        "Selection over a large vocabulary",
        [
            f"{ROWS} rows of {VOCABULARY:,} float32 logits; scores in float64, equal to those of "
            f"a whole float64 copy within {CLOSE:g} before anything is timed. The aim: at "
            "most 1.5 times one logsumexp and one max over the same logits."
        ],
        {"times one logsumexp + max": "{:.2f}", "ms": "{:.2f}", "logsumexp + max, ms": "{:.2f}"},
        "times one logsumexp + max",
        _lines(machine.device),
    )


def _lines(device: str, repeats: int = 15) -> Iterator[Line]:
    for name, timing in measure(repeats, device):
        yield faster(
            name,
            timing,
            "times one logsumexp + max",
            **{"ms": 1e3 * timing.ours, "logsumexp + max, ms": 1e3 * timing.reference},
        )


@torch.inference_mode()
def measure(repeats: int, device: str = "cpu") -> Iterator[tuple[str, Ratio]]:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(1, ROWS, VOCABULARY, generator=generator).to(device)
    wanted = _plainly(logits.double())

    def plain() -> tuple[Tensor, ...]:
        return logits.logsumexp(dim=-1), *logits.max(dim=-1)

    for name, score in KINDS.items():
        for kind, found in score(logits).items():
            if not torch.allclose(found, wanted[kind], rtol=0, atol=CLOSE):
                raise RunError(f"{name}: the {kind} is not that of a whole float64 copy")
        ours = waiting(lambda score=score: score(logits), device)
        yield name, alternate(ours, waiting(plain, device), repeats)


def _plainly(logits: Tensor) -> Scores:
    p = logits.softmax(dim=-1)
    (first, second), token = p.topk(2, dim=-1).values.unbind(dim=-1), logits.argmax(dim=-1)
    entropy = torch.special.entr(p).sum(dim=-1)
    return {"token": token, "probability": first, "entropy": entropy, "margin": first - second}
