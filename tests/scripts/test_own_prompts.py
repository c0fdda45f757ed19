"""`prompt=` and `task=prompts` on the command line."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.report.outputs import print_outputs
from dllm.runs.execute import execute
from dllm.tasks.prompts import Prompts
from scripts.command_line import with_prompt
from scripts.run import main


HOSTILE = [
    "Natalia sold 48 clips, and then half as many. How many altogether?",
    'it\'s "quoted", (a=b) {c: d} [e] \\ back\\\\ end\\',
    "two\nlines\tand a tab",
    "[red]markup[/x] $5 ~ # % @",
    "",
    " spaces ",
    "null",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_text_arrives_as_it_is(text: str) -> None:
    arguments = with_prompt(["sampler=threshold", f"prompt={text}"])
    config = compose(arguments)
    OmegaConf.resolve(config)
    assert config.task.prompt == text and config.task._target_.endswith("Prompts")


def test_other_arguments_stay() -> None:
    assert with_prompt(["-m", "task=json", "seed=1"]) == ["-m", "task=json", "seed=1"]


@pytest.mark.parametrize("arguments", [["task=json"], ["task.path=x"]])
def test_a_prompt_beside_a_task(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"{arguments[0]}: the prompt is the task"):
        with_prompt([*arguments, "prompt=x"])


def test_a_second_prompt() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        with_prompt(["prompt=x", "prompt=y"])


def test_a_refused_prompt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["run", "prompt=${seed}"])
    with pytest.raises(SystemExit) as stop:
        main()
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: prompt=") and err.count("\n") == 1


def test_what_a_configuration_would_resolve() -> None:
    with pytest.raises(ConfigError, match=r"task=prompts task\.path=FILE"):
        with_prompt(["prompt=${seed}"])


def test_texts_are_printed_in_the_order_of_the_file(
    options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"[b] {n}", "answer": "x"} for n in range(3)] + [{"prompt": "free"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    given = options("task=prompts", f"task.path={path}", "sampler=threshold", "baseline=false")
    folder, summary = execute(compose(given), "threshold")
    assert summary["metrics"]["n"] == 4 and summary["metrics"]["graded"] == 3
    print_outputs(folder, Prompts(str(path), None).samples("test"))
    asked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("> ")]
    assert asked == ["> [b] 0", "> [b] 1", "> [b] 2", "> free"]
    path.write_text(path.read_text().replace("[b] 1", "[b] 9"))
    edited, _ = execute(compose(given), "threshold")
    assert edited != folder
    assert (tmp_path / "runs" / "latest").resolve() == edited.resolve()
