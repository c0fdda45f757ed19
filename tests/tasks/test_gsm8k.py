"""GSM8K: prompts and both extractions as the lm-evaluation-harness has them."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from dllm.errors import ConfigError
from dllm.tasks.gsm8k import FORMS, Gsm8k


DATA = Path("../shared/data/gsm8k")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")


def task(path: Path | str | None, **changes: Any) -> Gsm8k:
    options = {"form": "gsm8k", "shots": 0, "multiturn": False, "filter": "flexible_extract"}
    options["prefix"] = ""
    return Gsm8k(path and str(path), **{**options, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"question": f"{n} + {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in (1, 600)
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_shots_are_text_or_turns(folder: Path) -> None:
    plain = task(folder / "test.jsonl", shots=2).samples("test")[0]
    assert plain.prompt.startswith("Question: ")
    assert plain.prompt.endswith("#### 1200\n\nQuestion: 1 + 1?\nAnswer:") or plain.prompt.endswith(
        "#### 2\n\nQuestion: 1 + 1?\nAnswer:"
    )
    turns = task(folder, shots=2, multiturn=True).samples("test")[0]
    assert turns.prompt == "Question: 1 + 1?\nAnswer:"
    assert len(turns.turns) == 2 and len(turns.messages) == 5


def test_an_answer_that_is_begun(folder: Path) -> None:
    plain, begun = (
        task(folder / "test.jsonl", prefix=prefix).samples("test")[0]
        for prefix in ("", "<reasoning> ")
    )
    assert (begun.prompt, begun.prefix) == (plain.prompt, "<reasoning> ")
    assert begun.id != plain.id


@pytest.mark.parametrize(
    ("text", "strict", "flexible", "unparsed"),
    [
        ("So #### 1,200", 1, 1, False),
        ("The answer is $1200.", 0, 1, False),
        ("#### 1200 and 7 left", 1, 0, False),
        ("no number", 0, 0, True),
        ("-1200", 0, 0, False),
        ("", 0, 0, True),
    ],
)
def test_extraction(folder: Path, text: str, strict: int, flexible: int, unparsed: bool) -> None:
    exact = task(folder)
    grade = exact.assess(exact.samples("test")[1], text)
    assert grade.scores == {"strict_match": strict, "flexible_extract": flexible}
    assert (grade.correct, grade.unparsed) == (bool(flexible), unparsed)
    strictly = task(folder, filter="strict_match")
    assert strictly.assess(strictly.samples("test")[1], text).correct == bool(strict)


def test_bad_data_is_one_line(tmp_path: Path, folder: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; expected .*question, answer"):
        task(tmp_path / "nowhere.jsonl").samples("test")
    (tmp_path / "wrong.jsonl").write_text('{"question": "1?"}')
    with pytest.raises(ConfigError, match=r"row 0 lacks answer; expected .*question, answer"):
        task(tmp_path / "wrong.jsonl").samples("test")
    with pytest.raises(ConfigError, match=r"task\.shots=99: train\.jsonl .* has \d+ rows"):
        task(folder / "test.jsonl", shots=99).samples("test")
    (folder / "train.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"task\.shots=1: .*train\.jsonl does not exist"):
        task(folder / "test.jsonl", shots=1).samples("test")
    import datasets

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ConfigError, match=r"task\.path=null: openai/gsm8k can't be fetched"):
        task(None).samples("test")


@needs_data
@pytest.mark.parametrize("form", ["gsm8k", "gsm8k_cot"])
def test_reference_solutions_are_right(form: str) -> None:
    whole = task(DATA, form=form)
    samples = whole.samples("test")
    assert len(samples) == 1319
    for sample in samples:
        grade = whole.assess(sample, whole.answer_in(sample.answer))
        assert grade.correct and all(grade.scores.values())


def harness_config(form: str) -> dict[str, Any]:
    """The installed harness's own definition of one of its tasks."""
    tasks = pytest.importorskip("lm_eval.tasks")
    file = Path(tasks.__file__).parent / "gsm8k" / f"{form.replace('_', '-')}.yaml"
    return yaml.safe_load(file.read_text())


@needs_data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", list(FORMS))
def test_both_filters_equal_the_harness(form: str) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    config = harness_config(form)
    ours = task(DATA, form=form)
    samples = ours.samples("test")
    assert set(config["generation_kwargs"]["until"]) == set(ours.stop)
    (metric,) = config["metric_list"]
    drawn = Random(0)
    seen = set()
    for _ in range(1000):
        sample = drawn.choice(samples)
        answer = sample.meta["row"]["answer"]
        text = made_up(answer, drawn)
        grade = ours.assess(sample, text)
        for filters in config["filter_list"]:
            options = {k: v for k, v in filters["filter"][0].items() if k != "function"}
            (found,) = RegexFilter(**options).apply([[text]], [{}])
            theirs = exact_match_hf_evaluate(
                predictions=found,
                references=[answer],
                regexes_to_ignore=metric["regexes_to_ignore"],
                ignore_case=metric["ignore_case"],
            )["exact_match"]
            ours_name = filters["name"].replace("-", "_")
            assert grade.scores[ours_name] == theirs, (text, filters["name"])
            seen.add((ours_name, float(theirs)))
    assert len(seen) == 4  # both filters, both grades


NUMBERS = ("{}", "${}", "{}.", "{}.00", "-{}", "7", "1,000")
SENTENCES = (
    "{}",
    "#### {}",
    "####{}",
    "The answer is {}.",
    "The answer is {}",
    "so {} apples, not 12",
    "#### {}\n#### 5",
    "x = {}\n\n",
    "$ {} .",
    "The answer is: {}",
    "none",
    "A. {} B. 3.",
    "..{}",
)


def made_up(answer: str, drawn: Random) -> str:
    """An output near the reference: its number in some notation, in some sentence."""
    number = drawn.choice(NUMBERS).format(answer.split("#### ")[1])
    before = drawn.choice(["", answer.split("####")[0], "3 "])
    return before + drawn.choice(SENTENCES).format(number)


@needs_data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("form", "shots"), [("gsm8k", 5), ("gsm8k_cot", 8)])
def test_few_shot_prompts_equal_the_harness(form: str, shots: int, tmp_path: Path) -> None:
    config = harness_config(form)
    from lm_eval.api.task import ConfigurableTask

    files = {split: str((DATA / f"{split}.jsonl").resolve()) for split in ("train", "test")}
    kwargs = {"data_files": files, "cache_dir": str(tmp_path)}
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}
    theirs = ConfigurableTask(config={**config, **local})
    theirs.sampler.set_rnd(1234)
    for number, sample in enumerate(task(DATA, form=form, shots=shots).samples("test", 3)):
        doc = theirs.dataset["test"][number]
        assert theirs.fewshot_context(doc, num_fewshot=shots) == sample.prompt


def test_chains_of_thought_are_eight() -> None:
    with pytest.raises(ValueError, match="has 8 worked examples"):
        task(None, form="gsm8k_cot", shots=9)
