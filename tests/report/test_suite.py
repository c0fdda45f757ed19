"""Suites: every row is a legal command or refused by name; a file with a fault is refused."""

from importlib import resources
from pathlib import Path

import pytest

from dllm.config import build, choices, compose
from dllm.engine.legality import refusals
from dllm.errors import ConfigError
from dllm.models.hub import checkpoint_folder, open_spec, open_tokenizer
from dllm.report.columns import BESIDE, COLUMNS
from dllm.report.suite import Chapter, load_suite, suites


CHAPTERS = [
    pytest.param(chapter, id=f"{name}: {chapter.title}")
    for name in suites()
    for chapter in load_suite(name).chapters
]
CAUSAL_ONLY = {"wedlm"}
"""Samplers that the pages of all samplers list as refused by tiny-llada."""


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_row_is_a_legal_command(chapter: Chapter) -> None:
    task = next(iter(chapter.tasks.values()))
    for row, options in chapter.cases().items():
        config = compose([*task, *options])
        sampler = build(config.sampler, "sampler")
        cache = build(config.cache, "cache")
        model = build(config.model, "model")
        if model.path is None:  # a trained model need not be there
            spec = open_spec(model)
            sampler = sampler.with_tokenizer(open_tokenizer(model, spec, checkpoint_folder(model)))
            found = refusals(sampler, cache, spec, config.batch_size)
            refused = row in CAUSAL_ONLY and spec.attention != "causal"
            assert bool(found) == refused, (row, found)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_columns_and_tasks_exist(chapter: Chapter) -> None:
    assert set(chapter.columns) <= COLUMNS.keys() | BESIDE.keys()
    for options in chapter.tasks.values():
        build(compose(options).task, "task")


@pytest.mark.parametrize("name", ["confidence", "leaderboard"])
def test_every_sampler_is_on_the_page(name: str) -> None:
    chapter = load_suite(name).chapters[0]
    shown = {
        option.removeprefix("sampler=")
        for options in chapter.cases().values()
        for option in options
        if option.startswith("sampler=")
    }
    assert shown | chapter.skipped.keys() == set(choices("sampler"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: x", "suite broken: "),
        ("[]", "suite broken: "),
        ("title: [", "suite broken: "),
        ("WHOLE\nodd: 1", "odd"),
        ("WHOLE".replace("WHOLE", "WHOLE_CURVE"), "there is no row 'absent'"),
    ],
)
def test_a_file_with_a_fault(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = "{title: c, text: t, columns: [n], tasks: {}, rows: {a: []}CURVE}"
    whole = f"title: x\ntext: t\noutput: o\nlimit: 1\nmargin: 0.1\nchapters: [{chapter}]"
    text = text.replace("WHOLE_CURVE", whole.replace("CURVE", ", curve: [absent]"))
    text = text.replace("WHOLE", whole.replace("CURVE", ""))
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "broken.yaml").write_text(text)
    monkeypatch.setattr(resources, "files", lambda name: tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_suite("broken")


def test_an_unknown_suite() -> None:
    with pytest.raises(ConfigError, match="suite absent is not one of blocks, caches, confidence"):
        load_suite("absent")
