"""What is printed is text: brackets are no styles, control characters no commands."""

from pathlib import Path

import pytest
from written_runs import answers, write_run

from dllm.printable import printable
from dllm.report.outputs import print_outputs
from dllm.report.tables import print_comparison
from dllm.runs.folder import RunFolder
from dllm.tasks.base import Sample
from scripts.command_line import CommandLine


EVIL = "[/x] [red]a[/red] :smile: \x1b[31mb\x07\u202e"
SHOWN = "[/x] [red]a[/red] :smile: \\x1b[31mb\\x07\\x202e"


def test_lines_stay_lines() -> None:
    assert printable(f"{EVIL}\n\tend \udc80") == f"{SHOWN}\n\tend \\xdc80"


def test_labels_and_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path, "threshold", answers([True], 3))
    summary = RunFolder(path).summary() | {"label": EVIL, "task": "t"}
    print_comparison([summary], [Path(EVIL)])
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\x07" not in said
    for part in ("[/x]", "[red]a[/red]", ":smile:", f"run folder: {SHOWN}"):
        assert part in said


def test_no_label_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path, "threshold", answers([True], 3))
    labels = [f"t (region.a_part.{'x' * 90}.block_length={n}, seed=1)" for n in (8, 16)]
    rows = [RunFolder(path).summary() | {"label": x, "fingerprint": x} for x in labels]
    print_comparison(rows, [path, path])
    cells = [
        line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line
    ]
    said = "".join(cells).replace(" ", "")
    assert all(label.replace(" ", "") in said for label in labels)


def test_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_run(tmp_path, "threshold", answers([True], 3, output=EVIL))
    print_outputs(path, [Sample("0000", "prompts", "p", "")])
    assert capsys.readouterr().out == f"{SHOWN}\n"


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> None:
        from dllm.errors import ConfigError

        raise ConfigError(f"a={EVIL}")

    assert CommandLine().plain(wrong) == 2
    assert capsys.readouterr().err == f"error: a={SHOWN}\n"
