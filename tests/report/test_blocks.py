"""The page of blocks and canvases: its figures, its commands, and a run of it on tiny models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_results import sample

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.tokenizers import load_tokenizer
from dllm.report.blocks import CHAPTERS, Chapter, Row, _verdicts, blocks, needed_canvas
from dllm.runs.folder import RunFolder
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace
from dllm.tasks.base import Sample


LLADA, CANVAS, SDAR = CHAPTERS
CASES = [(chapter, name) for chapter in CHAPTERS for name in chapter.cases(20)]


@pytest.mark.parametrize(("chapter", "name"), CASES, ids=lambda value: str(value)[:40])
def test_every_case_is_a_legal_command(chapter: Chapter, name: str) -> None:
    for task in chapter.tasks.values():
        options = [f"model={chapter.model}", *task, *chapter.run, *chapter.cases(20)[name]]
        config = compose(options)
        build(config.sampler, "sampler").validate(config.gen_length)
        build(config.task, "task")
        build(config.cache, "cache")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.title)
def test_every_comparison_is_between_rows(chapter: Chapter) -> None:
    names = set(chapter.cases(1))
    assert names >= {*chapter.beside, *(o for others in chapter.beside.values() for o in others)}


def test_fixed_canvases_are_multiples_of_the_needed_one() -> None:
    cases = CANVAS.cases(20)
    lengths = {n: compose(cases[f"fixed canvas, {n}x"]).gen_length for n in (1, 2, 4)}
    assert lengths == {1: 20, 2: 40, 4: 80}
    for name in ("daedal", "rho_eos", "dystruct (reconstruction)"):
        assert compose(cases[name]).gen_length == 80


def test_needed_canvas_is_the_longest_answer_and_its_end(checkpoint: Path) -> None:
    samples = [Sample.of("copy", text, text) for text in ("Ada", "Ada Bob Eva", "Ada Bob")]
    assert needed_canvas(samples, load_tokenizer(checkpoint)) == (2, 4)


def metrics(nfe: float, accuracy: float = 0.5) -> dict[str, Any]:
    return {
        "n": 2,
        "accuracy": accuracy,
        "accuracy_low": 0.1,
        "accuracy_high": 0.9,
        "nfe": nfe,
        "nfe_by_kind": {"commit": 2.0, "step": nfe - 2},
        "tpf": 1.25,
        "rows_per_token": 3.0,
    }


def test_blocks_and_waste_are_read_from_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    opened = {"a": [(-3, 5), (5, 13)], "b": [(-1, 7)]}
    tokens = {"a": [7, 8, 9, 1, 1, 1, 1, 1, 1, 1], "b": [7, 8, 9, 7, 8, 9]}
    for name, bounds in opened.items():
        steps = [Step(ForwardKind.STEP, 8, i, opened=at) for i, at in enumerate(bounds)]
        steps.append(Step(ForwardKind.STEP, 8, 0))
        result = replace(sample(name), tokens=tokens[name], correct=name == "a")
        folder.append(result, Trace(name, 10, 0, steps))
    row = Row.of(folder, {"model": "tiny", "metrics": metrics(8.0)}, (1,))
    # What lies in the prompt was not decoded: (5 + 8 + 7) / 3.
    assert row.block == pytest.approx(20 / 3)
    assert row.wasted == pytest.approx(7 / 16)
    assert row.grades == (True, False)
    line = "| x | tiny | 2 | 0.500 [0.100, 0.900] | 8.00 (commit 2.0) | 1.25 | 3.0 | 6.7 | 0.44 |"
    assert row.line("x") == line


def test_what_is_said_beside_the_simpler_one() -> None:
    ours = Row("tiny", metrics(6.0, 0.0), 8.0, 0.1, (False,) * 6)
    theirs = Row("tiny", metrics(8.0, 1.0), 8.0, 0.1, (True,) * 6)
    lines = _verdicts({"ours": ["theirs", "absent"]}, {"json": {"ours": ours, "theirs": theirs}})
    said = "json accuracy -1.000 (p 0.031), 0.75 times the forwards"
    assert lines[-1] == f"- **ours** beside theirs: {said}."
    assert _verdicts({"ours": ["absent"]}, {"json": {"ours": ours}}) == []


FEW = {
    LLADA.title: ["blocks of 8", "adablock, default 8", "adablock, default 16, dual cache"],
    CANVAS.title: ["fixed canvas, 2x", "daedal", "dystruct (reconstruction)"],
    SDAR.title: ["static, 2 steps", "bacd", "bacd + tccf"],
}


def test_the_page(checkpoint: Path, block_checkpoint: Path, tmp_path: Path) -> None:
    paths = {"tiny-llada": checkpoint, "tiny-sdar": block_checkpoint}
    chapters = [
        replace(
            chapter,
            run=[*chapter.run, f"model.path={paths[chapter.model]}", f"output={tmp_path / 'runs'}"],
        )
        for chapter in CHAPTERS
    ]
    tasks, cases = ["json", "lists, json and squares"], [n for names in FEW.values() for n in names]

    def page(name: str) -> str:
        blocks(tmp_path / name, 2, cases, tasks, chapters)
        return (tmp_path / name).read_text()

    text = page("first.md")
    for chapter in CHAPTERS:
        for name in FEW[chapter.title]:
            assert f"| {name} | {chapter.model} | 2 | " in text
    assert "the needed canvas (1x) is " in text
    assert "- **adablock, default 8** beside blocks of 8: json accuracy" in text
    before = {p: p.read_bytes() for p in tmp_path.rglob("samples.jsonl")}
    assert len(before) == 9
    assert page("second.md") == text
    assert {p: p.read_bytes() for p in tmp_path.rglob("samples.jsonl")} == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cases": ["luck"]}, "--samplers 'luck' is not one of "),
        ({"tasks": ["poems"]}, "--tasks 'poems' is not one of 'json', "),
    ],
)
def test_what_is_unknown_is_refused(wrong: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        blocks(tmp_path / "page.md", 2, **wrong)
    assert not list(tmp_path.iterdir())
