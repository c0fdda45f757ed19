"""The card of an adapted model, on one that changes nothing and on one that does."""

import json
from pathlib import Path

import pytest
import torch

from dllm.errors import ConfigError
from dllm.models import hub
from dllm.models.adapter import Adapted, AdapterSpec, save_adapter
from dllm.models.loading import load_model
from dllm.report import adapted
from dllm.report.adapted import last_number, measure


FACTS = {
    "command": "train me",
    "course": "straight",
    "data": "some",
    "steps": 3,
    "sequences": 4,
    "tokens": 5,
    "fed": 6,
    "seconds": 120.0,
    "seed": 0,
    "parameters": 7,
}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    lines = [
        {"question": f"{i}+1?", "answer": f"<<{i}+1=9>>It is {i + 1}.\n#### {i + 1}"}
        for i in range(2)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the adapter `mine` over the embedded model `tiny` lies."""
    monkeypatch.setattr(hub, "EMBEDDED", tmp_path / "embedded")
    monkeypatch.setattr(hub, "ADAPTERS", tmp_path / "adapters")
    monkeypatch.setattr(adapted, "ADAPTERS", tmp_path / "adapters")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "tiny").symlink_to(tiny_llama)
    return tmp_path / "adapters" / "mine"


def write(folder: Path, base: Path, block: int, change: float) -> None:
    spec = AdapterSpec(base="tiny", rank=2, scale=1.0, mask_id=2, block_size=block)
    learnt = Adapted(load_model(base), spec, seed=0).tensors()
    # The mask keeps its embedding: the head is tied to it.
    learnt["mask"].data.copy_(load_model(base).embed.weight[spec.mask_id])
    generator = torch.Generator().manual_seed(0)
    for name, tensor in learnt.items():
        if name.endswith(".b"):
            tensor.data.normal_(0.0, change, generator=generator)
    save_adapter(folder, spec, learnt)
    (folder / "training.json").write_text(json.dumps(FACTS))


def rows(card: str) -> list[list[str]]:
    lines = [line for line in card.splitlines() if line.startswith("| ") and "|" in line[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_blocks_of_one_without_a_change_are_the_base(
    folder: Path, tiny_llama: Path, questions: Path
) -> None:
    write(folder, tiny_llama, block=1, change=0.0)
    card = measure("mine", questions, 2, "float32")
    assert (folder / "README.md").read_text() == card
    for name, *cells in rows(card):
        if ", " in name:
            assert cells[1] == cells[2] and cells[3:] == ["+0.000", "reached"]
        elif len(cells) == 4 and name != "text":
            # Random weights: of 96 tokens one may be a draw, decided by rounding.
            assert 0.95 < float(cells[2]) < 1.05 and cells[3] == "reached"
        elif name in adapted.TOKENS_BAR:
            # A block of one is one token per forward, and then the block of its end.
            assert float(cells[0]) <= 1.0 and cells[0] == cells[1]
            assert cells[3].startswith("1.00") and cells[4] == "reached"
            assert "missed by" in cells[2]


def test_what_changes_is_measured(folder: Path, tiny_llama: Path, questions: Path) -> None:
    write(folder, tiny_llama, block=4, change=1.0)
    card = measure("mine", questions, 2, "float32")
    losses = [cells for name, *cells in rows(card) if ", " in name]
    assert len(losses) == 6 and all(float(cells[1]) > 0 for cells in losses)
    assert any(abs(float(cells[3])) > 0.15 for cells in losses)
    assert "`train me`" in card and "--questions test.jsonl --count 2 --dtype float32" in card
    assert str(questions.parent) not in card


def test_a_model_without_an_adapter(folder: Path, questions: Path) -> None:
    with pytest.raises(ConfigError, match="model tiny-llada has no adapter"):
        measure("tiny-llada", questions, 2, "float32")


def test_a_solution_is_named_by_its_last_number() -> None:
    assert last_number("so 3 + 4 = 7, in all $1,234.50.") == "1234.50"
    assert last_number("none") is None
