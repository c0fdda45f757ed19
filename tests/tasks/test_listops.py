"""List operations: what each kind asks for, and grading by validity where the answer is free."""

from random import Random

import pytest

from dllm.tasks.base import Sample
from dllm.tasks.listops import KINDS, ListOperations
from dllm.tasks.words import NAMES


TASK = ListOperations()


def given(kind: str, count: int = 300) -> list[Sample]:
    rng = Random(kind)
    return [TASK.draw(kind, rng) for _ in range(count)]


def test_names_are_distinct_single_words() -> None:
    assert len(NAMES) == len(set(NAMES)) == 128
    assert all(name.isalpha() and name.istitle() for name in NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_and_names(kind) -> None:
    samples = given(kind)
    assert {len(s.meta["names"]) for s in samples} == set(range(3, 16))
    assert all(s.prompt.endswith(": " + " ".join(s.meta["names"])) for s in samples)
    assert all(len(set(s.meta["names"])) == len(s.meta["names"]) for s in samples)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("copy", lambda names, new, index: names),
        ("reverse", lambda names, new, index: names[::-1]),
        ("sort", lambda names, new, index: sorted(names)),
        ("insert", lambda names, new, index: [*names[: index - 1], new, *names[index - 1 :]]),
        ("remove", lambda names, new, index: [*names[: index - 1], *names[index:]]),
        ("replace", lambda names, new, index: [*names[: index - 1], new, *names[index:]]),
    ],
)
def test_answers_follow_from_the_prompt(kind, expected) -> None:
    for sample in given(kind):
        command, listed = sample.prompt.split(": ")
        words, names = command.split(), listed.split()
        index = next((int(w) for w in words if w.isdigit()), 0)
        new = next((w for w in words if w in NAMES), None)
        assert sample.answer.split() == expected(names, new, index)


def test_indices_reach_both_ends() -> None:
    first = [s for s in given("insert") if " at 1:" in s.prompt]
    past_the_end = [s for s in given("insert") if s.answer.split()[-1] == s.meta["new"]]
    assert first and past_the_end


def sample_of(kind: str) -> Sample:
    return Sample.of(kind, "p", "", names=("Ada", "Bob", "Cem"), new="Zoe")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Bob Ada Cem", True),
        (" Cem Bob Ada\n", True),
        ("Ada Bob Cem", False),  # the order has to change
        ("Bob Ada", False),
        ("Bob Ada Cem Cem", False),
        ("Bob Ada Zoe", False),
        ("Bob  Ada Cem", False),
        ("", False),
    ],
)
def test_shuffle_is_graded_by_validity(text, right) -> None:
    assert TASK.grade(sample_of("shuffle"), text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Zoe Bob Cem", True),
        ("Ada Bob Zoe", True),
        ("Ada Bob Cem", False),
        ("Zoe Bob Zoe", False),
        ("Ada Mia Cem", False),
        ("Zoe Bob", False),
        ("Zoe Bob Cem Ada", False),
        ("", False),
    ],
)
def test_replace_random_is_graded_by_validity(text, right) -> None:
    assert TASK.grade(sample_of("replace_random"), text) is right


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="items 3 to 16: must lie in 2 to 15"):
        ListOperations(max_items=16)
