"""Tasks in a person's words: what is asked is what is answered, and the test is worded anew."""

import hashlib
import json
from random import Random

import pytest

from dllm.tasks.natural import LISTS, WORDINGS, NaturalTasks


TASK = NaturalTasks()


@pytest.mark.parametrize("kind", WORDINGS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_last_wording_is_met_in_the_test_alone(kind: str, split) -> None:
    kept = WORDINGS[kind][-1].split("{")[0]
    for sample in NaturalTasks([kind]).samples(split, 40):
        assert sample.split == split and sample.task == kind
        assert sample.prompt.startswith(kept) == (split == "test")
        assert "{" not in sample.prompt and TASK.grade(sample, f"{sample.answer}\n")
        assert not TASK.grade(sample, sample.answer[1:])


def test_lists_hold_the_names_of_the_question() -> None:
    rng = Random(0)
    for kind in LISTS:
        for _ in range(50):
            sample = TASK.draw(kind, rng)
            given = sample.prompt.rstrip(".").split(": ")[-1].split(", ")
            asked, answer = sample.prompt.split(": ")[0], sample.answer.split(", ")
            assert 4 <= len(given) <= 8 and given == list(sample.meta["names"])
            number = next(
                (int(word) for word in asked.replace(",", "").split() if word.isdigit()), 0
            )
            expected = {
                "copy": given,
                "reverse": given[::-1],
                "sort": sorted(given),
                "insert": [*given[: number - 1], sample.meta.get("new"), *given[number - 1 :]],
                "remove": [*given[: number - 1], *given[number:]],
                "replace": [*given[: number - 1], sample.meta.get("new"), *given[number:]],
            }[kind]
            assert answer == expected
            assert kind not in ("insert", "replace") or sample.meta["new"] in asked


def test_json_says_what_the_sentence_says() -> None:
    rng = Random(1)
    for _ in range(100):
        sample = TASK.draw("json", rng)
        value = json.loads(sample.answer)
        assert all(key in sample.prompt and str(value[key]) in sample.prompt for key in value)
        assert TASK.grade(sample, json.dumps(dict(reversed(value.items()))))


def test_arithmetic_is_written_in_steps() -> None:
    rng = Random(0)
    for _ in range(20):
        sample = TASK.draw("arithmetic", rng)
        *steps, last = sample.answer.split("\n")
        for step in steps:
            left, right = step.split(" = ")
            first, sign, second = left.split()
            assert int(right) == int(first) + int(f"{sign}{second}")
        assert last == f"The answer is {sample.meta['value']}."
        assert steps[-1].endswith(f" = {sample.meta['value']}")


def test_samples_are_those_that_the_shipped_adapter_was_measured_on() -> None:
    digests = {}
    for kind in WORDINGS:
        drawn = [s for split in ("train", "test") for s in NaturalTasks([kind]).samples(split, 100)]
        shown = "".join(f"{s.id} {s.prompt} {s.answer}\n" for s in drawn)
        digests[kind] = hashlib.sha256(shown.encode()).hexdigest()[:12]
    assert digests == {
        "copy": "9c0b776bb863",
        "reverse": "5bf16e0e8dc2",
        "sort": "7d7184634ee0",
        "insert": "84ce83e1088e",
        "remove": "389ee3995d7b",
        "replace": "90d69907eef3",
        "json": "3d85ecbc758b",
        "arithmetic": "b5d9a749a39d",
    }
