"""Training a filter on records whose labels follow a known rule, and the command around it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killed_training import killed
from safetensors.torch import save_file

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.models.filter import FilterFacts, FilterNetwork, load_filter
from dllm.training.filter import FilterRecipe, execute, report, split_records, train_filter
from dllm.training.records import Record, Records, RecordShards


RECIPE = FilterRecipe(
    depth=2,
    learning_rate=0.03,
    iterations=1500,
    patience=500,
    check_every=20,
    split="prompt",
    report_threshold=0.5,
    seed=0,
)


def records(count: int = 300) -> Records:
    """A position is final iff its confidence exceeds 0.6; three records per sample."""
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(count, 4, generator=generator)
    facts = {"model": "some model", "conf_dtype": "float32"}
    return Records(torch.arange(count) // 3, confidence, confidence > 0.6, facts)


def test_learns_the_rule() -> None:
    network, tested = train_filter(records(), RECIPE)
    assert tested["accuracy"] > 0.75
    assert tested["false_positive_rate"] < 0.2
    assert network.facts == FilterFacts(4, 2, "confidence", "float32", "some model")


def test_the_seed_decides() -> None:
    one, other = (train_filter(records(60), RECIPE)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_patience_the_last_weights_are_kept() -> None:
    # The rate is so large that the loss goes up again: the best weights are not the last ones.
    recipe = replace(RECIPE, learning_rate=0.5, iterations=400, patience=400)
    best, told = train_filter(records(60), recipe)
    last, at_the_end = train_filter(records(60), replace(recipe, patience=None))
    assert told["iteration"] < 400 == at_the_end["iteration"]
    name = "linear1.weight"
    assert not torch.equal(best.state_dict()[name], last.state_dict()[name])
    with pytest.raises(ConfigError, match=r"recipe\.patience=0 must be >= 1"):
        replace(recipe, patience=0)


def test_split_keeps_samples_together() -> None:
    made = records(90)
    parts = split_records(made, RECIPE)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(90))
    owners = [set(made.sample[at].tolist()) for at in parts.values()]
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    assert [len(found) for found in owners] == [24, 3, 3]
    with pytest.raises(ConfigError, match="3 prompts are too few to split"):
        split_records(records(9), RECIPE)


def test_rates_by_hand() -> None:
    network = FilterNetwork(FilterFacts(block_length=4, depth=1))
    eye = 10 * torch.eye(4)
    network.load_state_dict({"linear1.weight": eye, "linear1.bias": torch.full((4,), -5.0)})
    # Accepted where 10 c - 5 > ln 9, that is c > 0.7197: three of four, one of them wrong.
    c = torch.tensor([[0.9, 0.8, 0.73, 0.5]])
    found = report(network, c, torch.tensor([[True, False, True, True]]), 0.9)
    assert found["false_positive_rate"] == pytest.approx(1 / 3)
    assert found["false_negative_rate"] == pytest.approx(1.0)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["accepted_share"] == pytest.approx(0.75)


def collected(folder: Path, count: int = 120) -> None:
    """Records on disk."""
    made = records(count)
    shards = RecordShards(folder, {"model": "some model", "conf_dtype": "float32"})
    rows = zip(made.sample, made.confidence, made.final, strict=True)
    shards.append(
        [str(number) for number in range(count // 3)],
        [Record(str(int(sample)), 0, 0, c, final) for sample, c, final in rows],
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("save", [1, 3, 5])
def test_killed_anywhere_it_ends_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: int, when: str
) -> None:
    collected(tmp_path / "records")

    def train(name: str) -> list[bytes]:
        options = [f"data={tmp_path / 'records'}", f"output={tmp_path / name}", "tracker=none"]
        options += ["recipe.iterations=100", "recipe.check_every=20"]
        execute(compose(options, "train_filter"))
        files = ("filter.safetensors", "metrics.jsonl")
        return [(tmp_path / name / file).read_bytes() for file in files]

    with killed(monkeypatch, save, when):
        train("killed")
    assert train("killed") == train("whole")
    again = train("killed")
    assert again == train("whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("recipe.seed=3", "seed=0, this one has 3"),
        ("recipe.iterations=20", "iterations=40, this one has 20"),
        ("recipe.iterations=80", "iterations=40, this one has 80"),
        ("records", "a training with data="),
    ],
)
def test_another_recipe_in_the_folder_is_refused(tmp_path: Path, change: str, words: str) -> None:
    collected(tmp_path / "records")
    options = [f"data={tmp_path / 'records'}", f"output={tmp_path / 'out'}", "tracker=none"]
    options += ["recipe.iterations=40", "recipe.check_every=20"]
    execute(compose(options, "train_filter"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    if change == "records":
        (tmp_path / "records" / "shard-00000.safetensors").unlink()
        collected(tmp_path / "records", 150)
    with pytest.raises(ConfigError, match=words):
        execute(compose([*options, *([change] if "=" in change else [])], "train_filter"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("damage", ["truncated", "text", "other"])
def test_damaged_records_are_one_line(tmp_path: Path, damage: str) -> None:
    collected(tmp_path / "records")
    (shard,) = (tmp_path / "records").glob("shard-*")
    if damage == "other":
        save_file({"sample": torch.zeros(3)}, shard)
    else:
        shard.write_bytes(shard.read_bytes()[:-100] if damage == "truncated" else b"text")
    options = [f"data={tmp_path / 'records'}", f"output={tmp_path / 'out'}", "tracker=none"]
    with pytest.raises(ConfigError, match=f"^{shard} is damaged or holds no records$"):
        execute(compose(options, "train_filter"))


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    collected(tmp_path / "records")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.pt").write_bytes(b"PK garbage")
    options = [f"data={tmp_path / 'records'}", f"output={tmp_path / 'out'}", "tracker=none"]
    with pytest.raises(ConfigError, match=r"state\.pt is damaged: remove it"):
        execute(compose(options, "train_filter"))


def test_command_writes_filter_and_card(tmp_path: Path) -> None:
    collected(tmp_path / "records")
    options = [f"data={tmp_path / 'records'}", f"output={tmp_path / 'out'}", "tracker=none"]
    execute(compose([*options, "recipe.iterations=40", "recipe.check_every=20"], "train_filter"))
    network = load_filter(tmp_path / "out" / "filter.safetensors")
    assert network.facts.model == "some model"
    assert "| trained for | some model |" in (tmp_path / "out" / "FILTER.md").read_text()
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [20, 40]
    assert {"loss", "validation/loss", "validation/false_positive_rate"} <= set(
        json.loads(lines[0])
    )


def test_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(FilterNetwork(FilterFacts(8)).state_dict(), tmp_path / "published.pth")
    options = [f"convert={tmp_path / 'published.pth'}", f"output={tmp_path / 'out'}"]
    execute(compose([*options, "tracker=none"], "train_filter"))
    assert load_filter(tmp_path / "out" / "filter.safetensors").facts.block_length == 8
    assert "block_length=8: the published filter has 32" in capsys.readouterr().out
