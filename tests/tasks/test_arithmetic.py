"""Arithmetic chains: every step true, results in range."""

import re
from random import Random

import pytest

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
        for step, operation in zip(steps, operations, strict=True):
            result = value + int(operation)
            assert step == f"{value}{operation}={result}"
            assert 0 <= result <= 99
            value = result
        assert last == f"#### {value}"
        lengths.add(len(operations) + 1)
    assert lengths == {2, 3, 4}


def test_a_wrong_step_with_the_right_result_is_wrong() -> None:
    task = Arithmetic()
    sample = task.draw("arithmetic", Random(1))
    result = sample.answer.split("\n")[-1]
    assert task.grade(sample, sample.answer)
    assert not task.grade(sample, result)


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="terms 1 to 4"):
        Arithmetic(min_terms=1)
    with pytest.raises(ValueError, match="largest_term=90"):
        Arithmetic(largest_term=90)
