"""The oracle pass against the recorded one, its shards, and the command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import forked

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.filter import save_filter
from dllm.models.loading import load_model
from dllm.step.canvas import Prompt
from dllm.training.filter import train_filter
from dllm.training.records import Record, RecordShards, load_records
from scripts.collect import collect, collector_of


GOLDEN = Path(__file__).parents[1] / "golden"


def test_recorded_collection() -> None:
    recorded = json.loads((GOLDEN / "traces" / "learn2pd_collect.json").read_text())
    predictor = Predictor(load_model(GOLDEN / "models" / recorded["checkpoint"]))
    for number, case in enumerate(recorded["cases"][::3]):
        params = case["params"]
        collector = collector_of(
            predictor, params["block_length"], "model", "confidence", batch_size=1
        )
        prompt = Prompt(str(number), tuple(case["prompt"]), params["gen_length"])
        (answered,) = collector.references([prompt])
        assert list(answered.reference or ()) == case["reference"]
        records, (outcome,) = collector.records([answered])
        assert outcome.cost.nfe == case["nfe"]
        assert list(outcome.tokens) == case["output"]
        for ours, theirs in zip(records, case["records"], strict=True):
            assert (ours.block, ours.step) == (theirs["block"], theirs["step"])
            assert ours.confidence.tolist() == pytest.approx(theirs["confidence"], abs=1e-4)
            assert ours.final.tolist() == [bool(label) for label in theirs["is_correct"]]


def record(sample: str, step: int) -> Record:
    return Record(sample, 0, step, torch.rand(4), torch.rand(4) > 0.5)


def test_shards_are_read_back(tmp_path: Path) -> None:
    facts = {"model": "m", "block_length": 4}
    shards = RecordShards(tmp_path, facts)
    made = [record("a", 0), record("a", 1), record("b", 0), record("c", 0)]
    shards.append(["a", "b"], made[:3])
    shards.append(["c"], made[3:])
    assert RecordShards(tmp_path, facts).done() == {"a", "b", "c"}
    records = load_records(tmp_path)
    assert records.sample.tolist() == [0, 0, 1, 2]
    assert torch.equal(records.confidence, torch.stack([r.confidence for r in made]))
    assert torch.equal(records.final, torch.stack([r.final for r in made]))
    assert records.facts == facts


def test_shards_of_other_settings(tmp_path: Path) -> None:
    RecordShards(tmp_path, {"block_length": 4}).append(["a"], [record("a", 0)])
    with pytest.raises(ConfigError, match=r"holds records with block_length=4, this run has 8"):
        RecordShards(tmp_path, {"block_length": 8})
    with pytest.raises(ConfigError, match=r"holds no records: python -m scripts\.collect"):
        load_records(tmp_path / "empty")


def test_a_shard_that_was_taken_away_is_not_replaced_by_another(tmp_path: Path) -> None:
    shards = RecordShards(tmp_path, {"block_length": 4})
    paths = [shards.append([name], [record(name, 0)]) for name in "abc"]
    paths[1].unlink()
    assert RecordShards(tmp_path, {"block_length": 4}).done() == {"a", "c"}
    shards.append(["b"], [record("b", 0)])
    assert RecordShards(tmp_path, {"block_length": 4}).done() == {"a", "b", "c"}


def test_a_sample_recorded_twice_is_refused(tmp_path: Path) -> None:
    shards = RecordShards(tmp_path, {"block_length": 4})
    for _ in range(2):
        shards.append(["a"], [record("a", 0)])
    with pytest.raises(ConfigError, match=r"shard-00001\.safetensors holds a a second time"):
        load_records(tmp_path)


@pytest.mark.parametrize("change", ["seed=1", "task.kinds=[copy]"])
def test_another_task_or_seed_does_not_go_on(checkpoint: Path, tmp_path: Path, change: str) -> None:
    options = [f"model.path={checkpoint}", f"output={tmp_path / 'records'}", "gen_length=8"]
    options += ["block_length=4", "task=listops", "limit=2"]
    collect(compose(options, "collect"))
    with pytest.raises(ConfigError, match=f"holds records with {change[:4]}"):
        collect(compose([*options, change], "collect"))


def test_a_second_process_waits_and_finds_all_done(checkpoint: Path, tmp_path: Path) -> None:
    options = [f"model.path={checkpoint}", f"output={tmp_path / 'records'}", "gen_length=8"]
    options += ["block_length=4", "task=listops", "limit=4"]
    command = [sys.executable, "-m", "scripts.collect", *options]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=GOLDEN.parents[1])
        for _ in range(2)
    ]
    said = sorted(process.communicate()[0].splitlines()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said == ["0 samples recorded, 4 to do", "4 samples recorded, 0 to do"]
    assert load_records(tmp_path / "records").sample.unique().tolist() == [0, 1, 2, 3]


def test_the_same_command_goes_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"model.path={checkpoint}", f"output={tmp_path / 'records'}", "gen_length=8"]
    options += ["block_length=4", "shard_size=2", "task=listops", "batch_size=2"]
    collect(compose([*options, "limit=2"], "collect"))
    first = load_records(tmp_path / "records")
    collect(compose([*options, "limit=4"], "collect"))
    both = load_records(tmp_path / "records")
    assert "2 samples recorded, 2 to do" in capsys.readouterr().out
    assert both.sample.max() == 3
    assert torch.equal(both.confidence[: len(first.sample)], first.confidence)
    assert both.confidence.shape[1] == 4


def test_a_collection_that_is_killed(checkpoint: Path, tmp_path: Path) -> None:
    """While a shard is written, and between two."""
    options = [f"model.path={checkpoint}", "gen_length=8", "block_length=4", "shard_size=2"]
    options += ["task=listops", "batch_size=2", "limit=6"]

    def records(name: str) -> list[str]:
        return [*options, f"output={tmp_path / name}"]

    collect(compose(records("whole"), "collect"))

    def killed(at: int) -> None:
        real, count = os.replace, 0

        def replace(source: Path, target: Path) -> None:
            nonlocal count
            count += str(target).endswith(".safetensors")
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)

        os.replace = replace  # type: ignore[assignment]
        collect(compose(records("killed"), "collect"))

    for at in (1, 2):
        run = forked(lambda at=at: killed(at), tmp_path / "said")
        assert run.ended()[0] == -signal.SIGKILL
    collect(compose(records("killed"), "collect"))
    one, two = (load_records(tmp_path / name) for name in ("whole", "killed"))
    assert one.mark == two.mark


def test_entropies_are_recorded_and_trained_on(checkpoint: Path, tmp_path: Path) -> None:
    """Dream's features: at most 0, and 0 with a label that holds where a position is decided."""
    folder = tmp_path / "records"
    options = [f"model.path={checkpoint}", f"output={folder}", "gen_length=8", "block_length=4"]
    options += ["task=listops", "limit=20"]
    collect(compose([*options, "feature=negative_entropy"], "collect"))
    records = load_records(folder)
    assert (records.confidence <= 0).all()
    decided = records.confidence == 0
    assert decided.any() and not decided.all() and records.final[decided].all()
    recipe = build(compose(["recipe.iterations=100"], "train_filter").recipe, "recipe")
    network, _ = train_filter(records, recipe)
    assert network.facts.feature == "negative_entropy"
    save_filter(network, tmp_path / "filter.safetensors")
    named = [f"sampler.filter={tmp_path / 'filter.safetensors'}", "sampler.region.block_length=4"]
    rule = build(compose(["sampler=learn2pd", *named]).sampler, "sampler")
    # No plain threshold on a confidence is what such a filter amounts to.
    assert rule.control() is None
    with pytest.raises(ConfigError, match="holds records with feature=negative_entropy"):
        collect(compose(options, "collect"))
    with pytest.raises(ConfigError, match="feature=margin is not one of confidence, negative_ent"):
        collect(compose([*options, "feature=margin"], "collect"))


def test_blocks_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="block_length=5 does not divide gen_length=8"):
        collect(compose(["gen_length=8", "block_length=5", f"output={tmp_path}"], "collect"))
