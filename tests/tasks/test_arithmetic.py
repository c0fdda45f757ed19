"""Arithmetic chains: every step true, results in range."""

import re
from random import Random

import pytest

from dllm.constraints.languages import LarkText, built_in
from dllm.tasks.arithmetic import Arithmetic


def test_steps_are_true_and_lead_from_question_to_result() -> None:
    task, rng = Arithmetic(), Random(0)
    lengths = set()
    for _ in range(500):
        sample = task.draw("arithmetic", rng)
        *steps, last = sample.answer.split("\n")
        value = int(re.match(r"\d+", sample.prompt)[0])
        operations = re.findall(r"[+-]\d+", sample.prompt)
        assert len(steps) == len(operations)
        steps[0] = steps[0].removeprefix(f"{value:02}")  # the only step that names its start
        for step, operation in zip(steps, operations, strict=True):
            value += int(operation)
            assert step == f"{operation}={value:02}"
            assert 0 <= value <= 99
        assert last == f"#### {value:02}"
        lengths.add(len(operations) + 1)
    assert lengths == set(range(2, 13))


@pytest.mark.parametrize(("largest", "width"), [(1, 1), (9, 1), (50, 2)])
def test_terms_have_as_many_digits_as_the_largest_and_small_ones_come_more_often(
    largest: int, width: int
) -> None:
    task, rng = Arithmetic(largest_term=largest), Random(0)
    terms = [
        term
        for _ in range(300)
        for term in re.findall(r"[+-](\d+)", task.draw("arithmetic", rng).prompt)
    ]
    assert {len(term) for term in terms} == {width}
    assert {int(term) for term in terms} == set(range(1, largest + 1))
    if largest == 9:
        assert 6 * terms.count("9") < terms.count("1") < 13 * terms.count("9")  # 9 to 1


def test_a_wrong_step_with_the_right_result_is_wrong() -> None:
    task = Arithmetic()
    sample = task.draw("arithmetic", Random(1))
    result = sample.answer.split("\n")[-1]
    assert task.grade(sample, sample.answer)
    assert not task.grade(sample, result)


def test_the_built_in_grammar_allows_the_answers() -> None:
    task, rng = Arithmetic(max_terms=5), Random(0)
    language = LarkText(text=built_in("arithmetic"), start="start")
    for _ in range(5):
        assert language.complaint(task.draw("arithmetic", rng).answer) is None


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="terms 1 to 12"):
        Arithmetic(min_terms=1)
    with pytest.raises(ValueError, match="largest_term=90"):
        Arithmetic(largest_term=90)
