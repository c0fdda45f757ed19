"""From samples to prompts, from decoded tokens to graded samples."""

from dataclasses import replace

import pytest

from dllm.config import build, compose
from dllm.metrics.definitions import Summary
from dllm.models.hub import open_model
from dllm.runs.grading import encoded, grade
from dllm.step.outcome import Cost, Outcome
from dllm.tasks.base import Grade, Sample, Split, Task


class Colours(Task):
    """Which colour? Unreadable unless one is named."""

    kinds = ("colour",)
    stop = ("!", ".")

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        return [Sample.of("colour", "copy: Ada", "Ada")]

    def assess(self, sample: Sample, text: str) -> Grade:
        return Grade(
            correct=text == sample.answer, unparsed=text == "", scores={"length": len(text)}
        )


@pytest.fixture(scope="module")
def model():
    return open_model(build(compose(["model=tiny-llada"]).model, "model"))


def test_turns_and_prefix_are_part_of_the_prompt(model) -> None:
    _, tokenizer = model
    (sample,) = Colours().samples("test")
    shot = replace(sample, turns=(("copy: Mia", "Mia"),), prefix="Ada")
    plain, long = encoded(tokenizer, sample), encoded(tokenizer, shot)
    assert plain == tuple(tokenizer.chat(sample.prompt))
    assert long[-1:] == tuple(tokenizer.encode("Ada"))
    assert tokenizer.decode(long).index("Mia") < tokenizer.decode(long).rindex("copy: Ada")


def test_an_answer_ends_at_the_first_stop_text() -> None:
    assert Colours().answer_in("Ada. Mia!") == "Ada"
    assert Colours().answer_in("Ada") == "Ada"
    assert Colours().answer_in("!Ada.") == ""


def graded(model, text: str, **changes):
    decoder, tokenizer = model
    (sample,) = Colours().samples("test")
    outcome = Outcome(sample.id, 4, tuple(tokenizer.encode(text)), 3, Cost(), 1.0, **changes)
    return grade(outcome, sample, Colours(), tokenizer, decoder.spec)


def test_a_grade_reaches_sample_and_summary(model) -> None:
    right, empty = graded(model, "Ada. Mia"), graded(model, ".")
    assert (right.output, right.correct, right.unparsed) == ("Ada", True, False)
    assert (empty.output, empty.correct, empty.unparsed) == ("", False, True)
    summary = Summary.of([right, empty])
    assert (summary.correct, summary.unparsed, summary.scores) == (1, 1, {"length": 1.5})


def test_a_failed_sequence_is_wrong_and_not_unparsed(model) -> None:
    failed = graded(model, "Ada", failure="broken numbers")
    assert (failed.correct, failed.unparsed, failed.scores) == (False, False, {})
