"""Counts of one answer by hand, and speeds as totals."""

from pathlib import Path

import pytest
from sample_results import sample

from dllm.metrics.counters import COUNTERS, Speed, Vocabulary
from dllm.report.published import FOLDER, publications


WORDS = [" ", "E", "T", "a", "b", "Q:"]
"""Id -> spelling: E is EOS, T another end token."""


def encode(text: str) -> list[int]:
    found = []
    while text:
        word = next(w for w in WORDS if text.startswith(w))
        found.append(WORDS.index(word))
        text = text[len(word) :]
    return found


VOCABULARY = Vocabulary(
    eos=1, encode=encode, decode=lambda tokens: "".join(WORDS[t] for t in tokens), stop=("Q:",)
)
# "ab" then the other end token, more text behind it, EOS, and a stop text with more EOS
TOKENS = [3, 4, 2, 3, 1, 5, 1, 1]
SAMPLE = sample(
    "one",
    tokens=TOKENS, output="ab ", effective=2, committed=7, prompt_length=10,
    forwards={"step": 4}, seconds=0.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("effective", 2),
        ("answer", 3),  # a, b and a blank that the decoder made
        ("canvas", 8),
        ("fastdllm-answer", 4),  # a b T a
        ("fastdllm-dream", 5),  # a b T a Q
        ("canvas+prompt", 10 + 5),
        ("adablock-numel", 5),  # a b T a E
        ("positions decoded", 7),
        ("d2cache-eos", 2),
        ("dinfer-noneos", 5),  # a b T a Q
        ("d3llm-retok", 2),
    ],
)
def test_counts(name: str, tokens: int) -> None:
    _, count = COUNTERS[name]
    assert count(SAMPLE, VOCABULARY) == tokens


def test_fast_dllm_counts_otherwise_on_dream_and_on_humaneval() -> None:
    (fast_dllm,) = publications(Path(__file__).parents[2] / FOLDER, ["fast_dllm"])
    for row in fast_dllm.rows:
        if row.speed is None or "TPS" not in row.speed:
            continue
        tag = row.speed.partition("[")[2].rstrip("]")
        if "Dream" in row.model:
            assert tag == "fastdllm-dream"
        else:
            wanted = "canvas+prompt" if row.benchmark == "HumanEval" else "fastdllm-answer"
            assert tag == wanted


def test_speeds_are_totals() -> None:
    other = sample("two", tokens=[3] * 8, output="a" * 8, effective=8, committed=8, prompt_length=2,
                   forwards={"step": 8}, seconds=2.0)  # fmt: skip
    found = Speed.of("effective", [SAMPLE, other], VOCABULARY)
    assert (found.tokens, found.per_forward, found.per_second) == (5.0, 10 / 12, 4.0)
    assert Speed.of("canvas", [SAMPLE, other], VOCABULARY).per_forward == 16 / 12


def test_no_count_is_below_the_effective_one_that_holds_it() -> None:
    counts = {name: count(SAMPLE, VOCABULARY) for name, (_, count) in COUNTERS.items()}
    assert counts["effective"] <= counts["positions decoded"] <= counts["canvas"]
    assert counts["d3llm-retok"] <= counts["fastdllm-answer"] <= counts["adablock-numel"]
