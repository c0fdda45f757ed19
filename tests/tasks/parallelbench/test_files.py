"""Prompts and grades from ParallelBench's own files, and what is said of files that are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder
from dllm.tasks.parallelbench import texts
from dllm.tasks.parallelbench.files import ParallelBench


DATA = Path("../shared/data/parallelbench")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")


def bench(path: str | None, grammar: bool = True, infill: bool = False) -> ParallelBench:
    return ParallelBench(path, None, grammar, bertscore=False, infill=infill)


ROW: dict[str, Any] = {
    "input": {
        "context": '["A", "B"]',
        "icl_examples": [{"input": {"context": '["C", "D"]'}, "answer": {"example": '["D"]'}}],
    },
    "answer": '["A", "B"]',
}
SETTINGS = "line/copy:\n  metric: list_match_score\n  prompt: 'Copy\\n{context}'\n"


def written(folder: Path, rows: list[Any], settings: str = SETTINGS) -> str:
    (folder / "line").mkdir()
    path = folder / "line" / "copy.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (path.parent / "task_config.yaml").write_text(settings)
    return str(path)


def test_a_prompt_is_assembled(tmp_path: Path) -> None:
    (sample,) = bench(written(tmp_path, [ROW])).samples("test")
    assert sample.task == "line/copy"
    assert sample.messages == [
        {"role": "user", "content": 'Copy\n["C", "D"]'},
        {"role": "assistant", "content": '["D"]'},
        {"role": "user", "content": 'Copy\n["A", "B"]'},
    ]


def test_gaps_are_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, [{**ROW, "output_format": '["[MASK]", "[MASK]"]'}, ROW])
    plain, _ = bench(path).samples("test")
    assert plain.form == ""
    with pytest.raises(ConfigError, match="row 1 lacks output_format"):
        bench(path, infill=True).samples("test")
    Path(path).write_text(json.dumps({**ROW, "output_format": '["[MASK]", "[MASK]"]'}))
    (sample,) = bench(path, infill=True).samples("test")
    assert sample.form == '["[MASK]", "[MASK]"]'


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_only_the_gaps_are_decoded(cache: str, tmp_path: Path) -> None:
    row = {"input": {"context": "Luca Ivy Dean Gina"}, "answer": '["Luca Ivy Dean Gina"]'}
    rows = [{**row, "output_format": "Luca[MASK][MASK] Gina"}]
    rows += [{**row, "output_format": "Luca " * 40 + "[MASK]"}]  # does not fit
    path = written(tmp_path, rows, SETTINGS.replace("Copy\\n", "copy: "))
    options = ["task=parallelbench", f"task.path={path}", "task.infill=true", f"cache={cache}"]
    small = ["gen_length=16", "sampler=threshold", "sampler.region.block_length=8", "limit=2"]
    quiet = ["tracker=none", "progress=false", f"output={tmp_path / 'runs'}"]
    folder, summary = execute(compose([*options, *small, *quiet]), "threshold")
    done, lost = sorted(RunFolder(folder).samples(), key=lambda sample: sample.unfit)
    assert lost.unfit
    assert done.output == "Luca Ivy Dean Gina"
    assert done.committed == done.effective == 2
    assert summary["baseline"]["metrics"]["nfe"] == 1  # two tokens of one of two samples


def test_equal_rows_are_two_samples(tmp_path: Path) -> None:
    samples = bench(written(tmp_path, [ROW, ROW])).samples("test")
    assert len({sample.id for sample in samples}) == 2


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([{"input": {}}], SETTINGS, "row 0 lacks input or answer"),
        ([ROW, {"input": {"word": "A"}, "answer": "A"}], SETTINGS, "row 1 lacks 'context'"),
        ([ROW], "line/sort: {}\n", "no prompt and metric of line/copy"),
        ([ROW], SETTINGS.replace("list_match", "best"), "unknown metric best_score"),
        ([[1]], SETTINGS, "entry 1 is no object"),
    ],
)
def test_wrong_files(tmp_path: Path, rows: list[Any], settings: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bench(written(tmp_path, rows, settings)).samples("test")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.path=null"):
        bench(None).samples("test")
    with pytest.raises(ConfigError, match="does not exist"):
        bench(str(tmp_path / "nowhere")).samples("test")
    path = Path(written(tmp_path, [ROW]))
    (path.parent / "task_config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"no task_config\.yaml"):
        bench(str(path)).samples("test")


WORDS = "line/copy:\n  metric: sentence_to_words_score\n  prompt: 'Use {words}'\n"
WORDS_ROW = {"input": {"words": "dog and park"}, "answer": {"words": ["dog", "park"]}}


def test_java_is_asked_for_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, [WORDS_ROW], WORDS)
    monkeypatch.setattr(texts, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs Java"):
        bench(path).samples("test")
    task = bench(path, grammar=False)
    (sample,) = task.samples("test")
    assert task.assess(sample, "A hotdog in the park").correct
    assert not task.assess(sample, "A Dog in the park").correct


@needs_data
def test_the_benchmark_is_read_whole() -> None:
    task = bench(str(DATA), grammar=False)
    samples = task.samples("test")
    assert len(task.kinds) == 10 + 10 + 2 + 21
    assert len(samples) == 42 * 100 + 108
    assert len({sample.id for sample in samples}) == len(samples)
    assert [sample.task for sample in samples[:3]] == list(task.kinds[:3])
    for sample in samples:
        if sample.answer:
            assert task.assess(sample, sample.answer).correct, (sample.task, sample.answer)
    with_example = [s for s in samples if s.answer and not s.task.startswith("words_to_sentence")]
    assert len(with_example) == 21 * 100 + 108


@needs_data
def test_turns_of_the_benchmark() -> None:
    (sudoku, *_) = bench(str(DATA / "puzzle" / "sudoku_n4_12.jsonl")).samples("test")
    assert len(sudoku.turns) == 1
    assert "Input:\n0042\n2031\n4023\n3214\nOutput:\n" in sudoku.prompt
    assert "\\n" not in sudoku.prompt
