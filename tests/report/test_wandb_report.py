"""The page on Weights & Biases: built and checked without a server."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import wandb

from dllm.metrics.definitions import Summary
from dllm.report import wandb_report
from dllm.report.wandb_report import report
from scripts.report import main


parts = pytest.importorskip("wandb_workspaces.reports.v2")


def panels(page: Any) -> list[Any]:
    return [panel for block in page.blocks for panel in getattr(block, "panels", [])]


def test_the_page_draws_numbers_that_runs_send() -> None:
    page = report("mine", "us")
    assert (page.project, page.entity) == ("mine", "us")
    grids = [block for block in page.blocks if isinstance(block, parts.PanelGrid)]
    assert all(
        (grid.runsets[0].project, grid.runsets[0].entity) == ("mine", "us") for grid in grids
    )
    sent = {field.name for field in fields(Summary)}
    assert set(wandb_report.DECODED) <= sent
    (scatter,) = (panel for panel in panels(page) if isinstance(panel, parts.ScatterPlot))
    assert (scatter.x.name, scatter.y.name) == ("nfe", "accuracy")
    lines = [panel for panel in panels(page) if isinstance(panel, parts.LinePlot)]
    assert all(line.y[0].startswith(f"{line.x}/") for line in lines)
    # The library's own form of it, as it would be sent.
    for panel in panels(page):
        assert panel._to_model().model_dump_json(by_alias=True)


def test_the_page_is_sent_once(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    sent = []

    def save(self: Any) -> Any:
        sent.append(self)
        return type("Saved", (), {"url": "https://wandb.ai/us/mine/reports/x"})

    monkeypatch.setattr(parts.Report, "save", save)
    monkeypatch.setattr(wandb_report, "has_key", lambda: True)
    assert main(["wandb", "--project", "mine", "--entity", "us"]) == 0
    assert len(sent) == 1 and capsys.readouterr().out.endswith("/reports/x\n")


def test_a_server_that_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def save(self: Any) -> Any:
        raise wandb.errors.CommError("no\nroute")

    monkeypatch.setattr(parts.Report, "save", save)
    monkeypatch.setattr(wandb_report, "has_key", lambda: True)
    assert main(["wandb", "--project", "mine", "--entity", "us"]) == 1
    assert capsys.readouterr().err == (
        "error: --project mine: the report can't be saved: no route\n"
    )


def test_offline_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()  # its settings are read once per process
    assert main(["wandb", "--project", "mine"]) == 2
    error = capsys.readouterr().err
    assert "needs a key: set WANDB_API_KEY" in error and error.count("\n") == 1


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["wandb", "--project", "mine"]) == 2
    assert "pip install 'dllm-decode[reports]'" in capsys.readouterr().err
