"""Long commands that are killed (SIGKILL) at random moments, and given again until they end: what
they leave is what an undisturbed one leaves, and no other files."""

import json
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import gguf_file
import pytest
import torch
from forked import Forked, forked
from hydra.core.global_hydra import GlobalHydra
from random_checkpoint import small_run
from whole_runs import contents
from whole_runs import main as decode

import dllm.training.execute
import dllm.training.filter
import dllm.training.redundancy
from dllm.models import packaged
from dllm.tasks.listops import ListOperations
from dllm.training.records import Record, RecordShards, load_records
from scripts import collect, models, train


# What a command imports on its way, so that no forked process need do it.
assert dllm.training.execute and dllm.training.filter and dllm.training.redundancy


def command(script: object, *arguments: str) -> None:
    GlobalHydra.instance().clear()
    sys.argv = ["command", *arguments]
    code = script.main()  # type: ignore[attr-defined]
    assert not code


def metrics(folder: Path) -> list[dict]:
    """What a training has logged, without what a clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "tokens_per_second")
    return [{name: v for name, v in line.items() if name not in clock} for line in lines]


class Run:
    """With its baseline."""

    samplers = ("threshold", "low_confidence")
    kills = 2
    """In a series, at most: a command may have ended before."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.checkpoint, self.folder = checkpoint, folder

    def command(self, output: Path) -> None:
        more = ("sampler=threshold", "sampler/proposer=gumbel", "limit=12")
        decode(small_run(self.checkpoint, output, *more))

    def left(self, output: Path) -> object:
        return [contents(output, sampler) for sampler in self.samplers]


class Sweep(Run):
    samplers = ("threshold", "localleap", "low_confidence")

    def command(self, output: Path) -> None:
        more = ("sampler=threshold,localleap", f"hydra.sweep.dir={output / 'sweep'}", "limit=8")
        decode(["-m", *small_run(self.checkpoint, output, *more)])


class Collection(Run):
    def command(self, output: Path) -> None:
        given = [f"model.path={self.checkpoint}", f"output={output}", "gen_length=8", "limit=12"]
        given += ["block_length=4", "shard_size=2", "batch_size=2", "task=listops"]
        command(collect, *given)

    def left(self, output: Path) -> object:
        return load_records(output).mark


class Training(Run):
    """A model; its log averages several steps, its state is saved after each."""

    files = ("model/model.safetensors", "model/config.json")

    def command(self, output: Path) -> None:
        sizes = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "head_dim": 16}
        spec = [f"training.spec.{name}={size}" for name, size in {**sizes, "d_ff": 48}.items()]
        recipe = ["total_steps=20", "tokens_per_micro=160", "stages.ones.lengths={32: 1.0}"]
        recipe += [f"stages.{name}.lengths={{48: 1.0}}" for name in ("full", "loose")]
        more = ["compile=false", "log_every=7", "save_minutes=0", "eval_items=1"]
        given = [f"training.recipe.{option}" for option in recipe]
        given += [f"++training.recipe.{option}" for option in more]
        command(train, *spec, *given, "tracker=none", f"output={output}")

    def left(self, output: Path) -> object:
        return metrics(output), [(output / file).read_bytes() for file in self.files]


class FilterTraining(Training):
    files = ("filter.safetensors",)

    def command(self, output: Path) -> None:
        records = self.folder / "records"
        if not records.exists():
            drawn = torch.rand(120, 4, generator=torch.Generator().manual_seed(1))
            made = [Record(str(i // 3), 0, 0, c, c > 0.6) for i, c in enumerate(drawn)]
            names = [str(number) for number in range(40)]
            RecordShards(records, {"model": "m", "conf_dtype": "float32"}).append(names, made)
        given = [f"data={records}", f"output={output}", "tracker=none"]
        command(train, "filter", *given, "recipe.iterations=400", "recipe.check_every=20")


class RedundancyTraining(Training):
    files = ("model/model.safetensors", "model/config.json")

    def command(self, output: Path) -> None:
        ListOperations.grade = lambda *_: True  # type: ignore[method-assign, assignment]
        given = [f"model.path={self.checkpoint}", f"output={output}", "tracker=none"]
        given += ["task=listops", "gen_length=8", "sampler.base.region.block_length=8"]
        given += ["batch_size=2", "recipe.trajectories=2", "recipe.iterations=40"]
        command(train, "redundancy", *given, "recipe.rows=2", "recipe.save_minutes=0")


class Fetch(Run):
    kills = 8  # it takes milliseconds

    def command(self, output: Path) -> None:
        file = self.folder / "tiny.gguf"
        if not file.exists():
            gguf_file.write(file, gguf_file.metadata(), gguf_file.tensors())
        known = packaged.PACKAGES["smollm2"]
        packaged._locate = lambda *_: file
        packaged.PACKAGES["smollm2"] = replace(known, sha256=packaged.digest(file))
        packaged.folder_of = lambda name: output / name
        command(models, "fetch", "smollm2")

    def left(self, output: Path) -> object:
        return {path.name: path.read_bytes() for path in (output / "smollm2").iterdir()}


KINDS = (Run, Sweep, Collection, Training, FilterTraining, RedundancyTraining, Fetch)


@pytest.mark.parametrize(
    ("kind", "series"),
    [
        *((kind, 1) for kind in (Sweep, Training, Fetch)),
        *(pytest.param(kind, 5, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_killed_at_random_moments(
    kind: type[Run], series: int, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    made, draw, kills = kind(checkpoint, tmp_path / "data"), random.Random(kind.__name__), 0

    def started(output: Path) -> Forked:
        return forked(lambda: made.command(output), tmp_path / "said")

    began = time.monotonic()
    code, said = started(tmp_path / "whole").ended()
    assert code == 0, said
    long = time.monotonic() - began
    for output in (tmp_path / str(number) for number in range(series)):
        for _ in range(made.kills):
            process = started(output)
            time.sleep(draw.uniform(0, long))
            process.kill()
            code, said = process.ended()
            assert code in (0, -signal.SIGKILL), said
            kills += code != 0
        code, said = started(output).ended()
        assert code == 0, said
        assert made.left(output) == made.left(tmp_path / "whole")
        assert files(output) == files(tmp_path / "whole")
    print(f"{kind.__name__}: {kills} kills in {series} series")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
