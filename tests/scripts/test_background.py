"""The calibration table of PC-Sampler from text files."""

import json
from pathlib import Path

import pytest

from scripts.background import main


def test_counts_the_models_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("sort: mia, ben, mia\n" * 3, encoding="utf-8")
    output = tmp_path / "table.json"
    assert main([str(corpus), "--output", str(output)]) == 0
    table = json.loads(output.read_text())
    assert sum(table["p_baseline_dict"].values()) == table["num_token"] > 10
    assert f"{table['num_token']} tokens" in capsys.readouterr().out


def test_refused_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "table.json")]
    assert main([str(tmp_path / "absent.txt"), *output]) == 2
    absent = f"error: {tmp_path / 'absent.txt'}: No such file or directory\n"
    assert capsys.readouterr().err == absent
    (tmp_path / "bytes.txt").write_bytes(b"\xff")
    assert main([str(tmp_path / "bytes.txt"), *output]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'bytes.txt'} is no UTF-8 text\n"
    (tmp_path / "empty.txt").write_text("")
    assert main([str(tmp_path / "empty.txt"), *output]) == 2
    assert capsys.readouterr().err == "error: the corpus holds no token\n"
    assert not (tmp_path / "table.json").exists()


def test_an_output_that_can_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, output = tmp_path / "corpus.txt", tmp_path / "absent" / "table.json"
    corpus.write_text("mia")
    assert main([str(corpus), "--output", str(output)]) == 2
    said = capsys.readouterr().err
    assert said == f"error: --output {output} can't be written: No such file or directory\n"
