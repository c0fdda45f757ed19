"""Likeness of free texts by hand; what is said of packages, models and Java that are not here."""

from typing import Any

import pytest

from dllm.errors import ConfigError
from dllm.tasks.parallelbench import texts
from dllm.tasks.parallelbench.texts import Texts


class Checker:
    """Finds fault with one word."""

    def check(self, text: str) -> list[str]:
        return ["spelling"] if "teh" in text else []


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(texts, "_language_tool", lambda asked, wanted: Checker())
    return monkeypatch


def test_summaries_have_rouge(checked: Any) -> None:
    pytest.importorskip("rouge_score")
    judge = Texts({"summary_score"}, grammar=True, bertscore=False)
    # "running" and "runs" have one stem; 2 of 3 words, 1 of 2 pairs, a common sequence of 2
    grade = judge.assess("summary_score", " He runs far \n", {"summary": "He running home"})
    expected = {"rouge1": 2 / 3, "rouge2": 1 / 2, "rougeL": 2 / 3}
    assert {name: grade.scores[name] for name in expected} == pytest.approx(expected)
    assert grade.correct and grade.scores["score_v1"] == pytest.approx(2 / 3)
    faulty = judge.assess("summary_score", "teh cat", {"summary": "teh cat"})
    assert not faulty.correct and faulty.scores["rougeL"] == 1 and faulty.scores["score_v1"] == 0
    empty = judge.assess("summary_score", "\n", {"summary": "He runs."})
    assert not empty.correct and empty.scores["score_v1"] == 0


@pytest.mark.parametrize(
    ("text", "inverse"),
    [
        ("a b c d f", 1 - (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ("a b c d e", 0.0),
        ("a b c", 1.0),  # no four words in a row
        ("v w x y z", 1.0),
        ("", 0.0),
    ],
)
def test_paraphrases_have_bleu(checked: Any, text: str, inverse: float) -> None:
    pytest.importorskip("sacrebleu")
    judge = Texts({"paraphrase_score"}, grammar=True, bertscore=False)
    grade = judge.assess("paraphrase_score", text, {"text": "a b c d e"})
    assert grade.scores["inverse_bleu"] == pytest.approx(inverse)
    assert grade.correct == bool(text) and "score_v1" not in grade.scores


def test_with_bertscore_the_product_is_whole(checked: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu")
    checked.setattr(texts, "_bert", lambda: lambda text, source: 0.5)
    judge = Texts({"paraphrase_score"}, grammar=True, bertscore=True)
    grade = judge.assess("paraphrase_score", "v w x y z", {"text": "a b c d e"})
    assert grade.scores["score_v1"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("metric", "package"),
    [("summary_score", "rouge-score"), ("paraphrase_score", "sacrebleu")],
)
def test_packages_are_asked_for(checked: pytest.MonkeyPatch, metric: str, package: str) -> None:
    checked.setattr(texts, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {package}"):
        Texts({metric}, grammar=True, bertscore=False)


def test_the_model_of_bertscore_is_asked_for(checked: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu")
    checked.setattr(texts, "find_spec", lambda name: True)
    checked.setattr(texts, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(ConfigError, match=r"needs the model roberta-large \(1\.4 GB\)"):
        Texts({"paraphrase_score"}, grammar=True, bertscore=True)


def test_grammar_alone_grades_summaries() -> None:
    with pytest.raises(ConfigError, match="samsum is graded by grammar alone"):
        Texts({"summary_score"}, grammar=False, bertscore=False)
