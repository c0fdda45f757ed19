"""What every generated task promises: determinism, the split, self-consistency, short sequences."""

import re
from itertools import pairwise
from random import Random

import pytest
from tokenizers import Tokenizer

from dllm.tasks import base
from dllm.tasks.base import GeneratedTask, Sample, content_id, split_of
from dllm.tasks.listops import ListOperations
from dllm.tasks.suite import EmbeddedSuite, Mixture
from dllm.training.evaluate import LISTS, REGIONS
from dllm.training.vocabulary import chat_prompt


SUITE = EmbeddedSuite()


@pytest.mark.parametrize("split", ["train", "test"])
def test_same_seed_same_samples_and_a_longer_list_extends_a_shorter_one(split) -> None:
    first = SUITE.samples(split, 33, seed=3)
    assert first == SUITE.samples(split, 55, seed=3)[:33]
    assert [s.id for s in first] != [s.id for s in SUITE.samples(split, 33, seed=4)]


def test_kinds_come_in_equal_numbers_two_hundred_by_default() -> None:
    task = EmbeddedSuite(kinds=["copy", "latin"])
    kinds = [sample.task for sample in task.samples("test")]
    assert kinds == ["copy", "latin"] * 200


def test_a_count_that_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SOON", 5)
    with pytest.warns(UserWarning, match="limit=6: so many samples take a while to draw"):
        assert len(SUITE.samples("test", 6)) == 6


def test_the_splits_cannot_overlap() -> None:
    held_out = {sample.id for sample in SUITE.samples("test", 1100)}
    stream = SUITE.stream(Random(0))
    trained = {next(stream).id for _ in range(3000)}
    assert not held_out & trained
    assert all(split_of(i) == "test" for i in held_out)
    assert all(split_of(i) == "train" for i in trained)


def test_the_id_is_a_hash_of_task_and_prompt_only() -> None:
    assert content_id("copy", "copy: Mia Tom") == "c62658068ae56051"
    assert Sample.of("copy", "p", "a").id == Sample.of("copy", "p", "b", x=1).id
    assert Sample.of("copy", "p", "a").id != Sample.of("sort", "p", "a").id


def test_one_prompt_in_ten_is_held_out() -> None:
    held_out = sum(split_of(content_id("t", str(i))) == "test" for i in range(5000))
    assert 400 < held_out < 600


@pytest.mark.parametrize("kind", SUITE.kinds)
def test_the_reference_is_graded_right_and_other_answers_wrong(kind) -> None:
    samples = EmbeddedSuite(kinds=[kind]).samples("test", 40)
    for sample, other in pairwise(samples):
        assert SUITE.grade(sample, sample.answer)
        assert not SUITE.grade(sample, "")
        assert not SUITE.grade(sample, sample.answer + " Mia")
        assert other.answer == sample.answer or not SUITE.grade(sample, other.answer)


def test_sequences_fit_the_canvases_of_the_embedded_models(tokenizer: Tokenizer) -> None:
    stream = SUITE.stream(Random(1))
    for _ in range(3000):
        sample = next(stream)
        assert len(tokenizer.encode(chat_prompt(sample.prompt)).ids) <= 96
        region = REGIONS.get(sample.task, LISTS)
        assert len(tokenizer.encode(sample.answer).ids) < region  # an EOS fits, too


def test_a_kind_that_is_too_small_says_so() -> None:
    class Tiny(GeneratedTask):
        kinds = ("tiny",)

        def draw(self, kind: str, rng: Random) -> Sample:
            return Sample.of(kind, str(rng.randint(0, 30)), "")

        def grade(self, sample: Sample, text: str) -> bool:
            return True

    with pytest.raises(ValueError, match="task tiny: the train split has only about"):
        Tiny().samples("train", 100)


def test_wrong_selections_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kinds=\['coppy'\] must be distinct and among copy, rev"):
        ListOperations(kinds=["coppy"])
    with pytest.raises(ValueError, match="distinct"):
        EmbeddedSuite(kinds=["copy", "copy"])
    with pytest.raises(ValueError, match="kind copy is in two"):
        Mixture([ListOperations(), ListOperations(kinds=["copy"])])
    with pytest.raises(ValueError, match="split='dev' is not one of"):
        SUITE.samples("dev")


def test_the_suite_s_options_bound_lists_and_arithmetic() -> None:
    suite = EmbeddedSuite(["copy", "arithmetic"], 5, 6, 3, 4, largest_term=2)
    for sample in suite.samples("test", 40):
        if sample.task == "copy":
            assert 5 <= len(sample.meta["names"]) <= 6
        else:
            assert 2 <= len(re.findall(r"[+-][12](?=[+-]|$)", sample.prompt)) <= 3
