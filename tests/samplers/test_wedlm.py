"""WeDLM's rule and its window: worked examples."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scripted import built
from tiny_decoding import SPEC, canvas_of
from written import picked

from dllm.errors import ConfigError
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from samplers.wedlm import WeDLM


ENTROPY = (0.10, 0.35, 0.05, 0.41, 0.30, 0.02)


def with_entropy(entropy: float) -> torch.Tensor:
    """Logits over the vocabulary with this entropy in nats, most likely token 9."""
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        logits = torch.zeros(SPEC.vocab_size, dtype=torch.float64)
        logits[9] = middle
        p = logits.softmax(0)
        low, high = (middle, high) if -(p * p.log()).sum() > entropy else (low, middle)
    return logits


def rule(**options: object) -> WeDLM:
    named = [f"sampler.{key}={'null' if v is None else v}" for key, v in options.items()]
    found = built("sampler=wedlm", "sampler.conf_dtype=float64", *named)
    assert isinstance(found, WeDLM)
    return found


def decide(
    sampler: WeDLM, canvas: Canvas, entropies: Sequence[float], state: SamplerState | None = None
) -> Decision:
    """`entropies` of the wanted positions in their order."""
    if state is None:
        state = SamplerState(sampler.fields(), canvas.capacity, "cpu")
        state.append()
    wanted = sampler.plan(canvas, sampler.region.eligible(canvas), state).positions
    logits = torch.zeros(1, wanted.shape[1], SPEC.vocab_size, dtype=torch.float64)
    for row in range(wanted.shape[1]):
        logits[0, row] = with_entropy(entropies[row])
    positions = torch.from_numpy(wanted)
    view = View(canvas, positions, logits, positions >= 0)
    sampler.observe(view, state)
    return sampler.select(view, state)


def chosen(sampler: WeDLM, answer: Sequence[int], entropies: Sequence[float]) -> list[int]:
    """Numbers of the chosen masks."""
    decision = decide(sampler, canvas_of(list(answer), prompt=(5, 6, 7)), entropies)
    return decision.commit[0].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("threshold", "penalty", "expected"),
    [
        (0.4, 0.02, [0, 1, 2, 4, 5]),
        (0.4, 0.10, [0, 2]),
        (None, 0.02, [2]),
        (None, 0.10, [0]),
        (0.01, 0.02, [2]),
    ],
)
def test_selection(threshold: float | None, penalty: float, expected: list[int]) -> None:
    sampler = rule(entropy_threshold=threshold, position_penalty=penalty)
    assert chosen(sampler, [0] * 6, ENTROPY) == expected


def test_distance_counts_window_positions() -> None:
    """Masks at window indices 2, 5, 6, 9, 10 and 15."""
    answer = [0 if i in (2, 5, 6, 9, 10, 15) else 9 for i in range(16)]
    sampler = rule(entropy_threshold=0.4, position_penalty=0.02)
    assert chosen(sampler, answer, ENTROPY) == [0, 2, 5]


def test_nothing_below_so_the_smallest() -> None:
    sampler = rule(entropy_threshold=0.39, position_penalty=0.0)
    assert chosen(sampler, [0, 0], (0.5, 0.4)) == [1]


def test_threshold_is_strict() -> None:
    sampler = rule(entropy_threshold=0.375, position_penalty=0.0)
    assert picked(sampler, -0.375, -0.25, -0.5) == {1}


def drawn(**options: object) -> set[int]:
    """Tokens of 400 samples of the probabilities 0.4, 0.3, 0.2, 0.1 (ids 5 to 8)."""
    named = [f"sampler.proposer.{key}={value}" for key, value in options.items()]
    found = built("sampler=wedlm", "sampler/proposer=filtered", *named)
    logits = torch.full((1, 400, SPEC.vocab_size), -50.0)
    logits[..., 5:9] = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    canvas = canvas_of([0] * 400, prompt=(5,))
    positions = torch.arange(1, 401)[None]
    view = View(canvas, positions, logits, positions >= 0)
    return set(found.proposer.propose(view)[0].tolist())


def test_sampling_filters_in_the_order_of_the_engine() -> None:
    """Of the three best the first two hold 0.78; top-p first, or after the temperature, would keep
    the third."""
    assert drawn(temperature=5.0, top_k=3, top_p=0.75) == {5, 6}
    assert drawn(temperature=5.0, top_p=0.75) == {5, 6, 7}
    assert drawn(temperature=1.0) == {5, 6, 7, 8}
    assert drawn(temperature=5.0, top_k=1) == {5}


@pytest.mark.parametrize(
    ("option", "message"),
    [("top_k=0", "proposer.top_k=0 must be >= 1"), ("top_p=0.0", r"proposer.top_p=0.0 is outside")],
)
def test_filters_out_of_range(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built("sampler=wedlm", "sampler/proposer=filtered", f"sampler.proposer.{option}")


def timeline(refill: str) -> list[tuple[list[int], list[int], int]]:
    """(Filled rows, masks, committed) of five steps with window 4."""
    script = [(0, 1, 3), (0, 1), (0, 2), (0, 1, 2, 3), (0, 1)]
    sampler = rule(**{"region.window": 4, "entropy_threshold": 0.4, "refill": refill})
    canvas = canvas_of([0] * 24, prompt=(5, 6, 7))
    state = SamplerState(sampler.fields(), canvas.capacity, "cpu")
    state.append()
    found, committed = [], 0
    for fills in script:
        masks = canvas.masked()[0].nonzero()[0]
        decided = [p - 3 for p in range(3 + committed, canvas.length[0]) if p not in masks]
        wanted = sampler.plan(canvas, sampler.region.eligible(canvas), state).positions[0]
        low = [0.01 if number in fills else 2.0 for number in range(wanted.size)]
        run = int(masks[0]) - 3 - committed
        decision = decide(sampler, canvas, low, state)
        found.append((decided, (wanted - 3).tolist(), run))
        committed += run
        canvas.tokens[0, wanted[decision.commit[0].numpy()]] = 9
    return found


def test_timeline_of_the_engine() -> None:
    assert timeline("before_forward") == [
        ([], [0, 1, 2, 3], 0),
        ([0, 1, 3], [2, 4, 5], 2),
        ([2, 3, 4], [5, 6, 7, 8], 3),
        ([5, 7], [6, 8, 9], 1),
        ([6, 7, 8, 9], [10, 11, 12, 13], 4),
    ]


def test_timeline_of_the_paper() -> None:
    assert timeline("after_commit") == [
        ([], [0, 1, 2, 3], 0),
        ([0, 1, 3], [2], 2),
        ([2, 3], [4, 5], 2),
        ([4], [5, 6, 7], 1),
        ([5, 6, 7], [8], 3),
    ]


@pytest.mark.parametrize(
    ("answer", "stops", "end"),
    [
        ([9, 1, 9, 0], [], 5),
        ([9, 9, 0, 1], [], None),
        ([9, 8, 7, 0], [[9, 8]], 5),
        ([9, 8, 7, 0], [[8, 9], [5]], None),
        ([9, 9, 9, 9], [], 7),
    ],
)
def test_end_of_the_committed_stream(
    answer: list[int], stops: list[list[int]], end: int | None
) -> None:
    """An end token counts once nothing before it is masked; gen_length ends the answer, too."""
    sampler = rule(stop_sequences=stops)
    canvas = canvas_of(answer, prompt=(5, 6, 7))
    decision = decide(sampler, canvas, [0.01] * 4)
    assert decision.stop is not None and decision.length is not None
    assert bool(decision.stop[0]) == (end is not None)
    assert int(decision.length[0]) == (canvas.length[0] if end is None else end)
    assert not (decision.stop[0] and decision.commit.any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy_threshold": 0.0}, "entropy_threshold=0.0 must be > 0"),
        ({"position_penalty": -1.0}, "position_penalty=-1.0 must be >= 0"),
        ({"region.window": 0}, "region.window=0 must be >= 1"),
        ({"stop_sequences": "[[]]"}, "holds an empty sequence"),
    ],
)
def test_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(**options)


def test_needs_a_causal_model() -> None:
    with pytest.raises(ConfigError, match="needs a causal model"):
        rule().check_model(SPEC)
    assert np.all(rule().region.eligible(canvas_of([0] * 20, prompt=(5,)))[0, 1:17])
