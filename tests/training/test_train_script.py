"""`python -m scripts.train` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.execute import execute
from dllm.training.export import objective_of
from dllm.training.metric_log import MetricLog


ROOT = Path(__file__).parents[2]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
SMALL = [
    "tracker=none",
    "training.spec.d_model=32",
    "training.spec.n_layers=1",
    "training.spec.n_heads=2",
    "training.spec.n_kv_heads=2",
    "training.spec.head_dim=16",
    "training.spec.d_ff=48",
    "training.recipe.total_steps=60",
    "training.recipe.tokens_per_micro=384",
    "training.recipe.compile=false",
    "training.recipe.log_every=1",
    "training.recipe.save_minutes=0",
    "training.recipe.eval_items=1",
]


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "scripts.train", *overrides]


def test_help_comes_without_torch() -> None:
    code = "import sys, scripts.train; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "conf" / "training").glob("tiny-*.yaml"))
)
def test_every_shipped_recipe_composes_and_builds(name: str) -> None:
    model = "-".join(name.split("-")[:2])  # what follows names a later part of its course
    config = compose(["tracker=none", f"model={model}", f"training={name}"], "train")
    recipe = build(config.training.recipe, "training.recipe")
    shares = [stage.until for stage in recipe.stages.values()]
    assert shares == sorted(shares) and shares[-1] == 1.0
    kinds = {kind for stage in recipe.stages.values() for kind in stage.weights}
    assert kinds <= set(EmbeddedSuite().kinds)


@pytest.mark.parametrize("name", ["tiny-ar", "tiny-llada", "tiny-sdar", "tiny-wedlm"])
def test_options_of_reporting_need_no_plus(name: str) -> None:
    given = [
        f"{option}=1" for option in ("log_every", "save_minutes", "eval_minutes", "eval_items")
    ]
    compose([f"model={name}", *(f"training.recipe.{option}" for option in given)], "train")


def test_tiny_llada_is_trained_by_default() -> None:
    config = compose(["tracker=none"], "train")
    assert config.model.name == "tiny-llada"
    assert config.training == compose(["tracker=none", "training=tiny-llada"], "train").training


def test_a_wrong_option_names_itself() -> None:
    config = compose(["tracker=none", "training.recipe.total_steps=many"], "train")
    with pytest.raises(ConfigError, match="total_steps='many' is not of type int"):
        execute(config)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("training.spec.d_model=0", "training.spec.d_model=0 must be >= 1"),
        ("training.spec.d_model=x", "training.spec.d_model=x is not of type"),
        ("training.spec.family=nowhere", "training.spec.family=nowhere is not one of llada, "),
        ("+training.spec.nothing=1", "training.spec.nothing is no field; there are family, "),
        ("training.spec.eos_ids=[]", r"training.spec.eos_ids=\[\] names no end token"),
        ("training.spec.vocab_size=5", "training.spec.vocab_size=5 does not hold the tokenizer's"),
        (
            "training.recipe.device=gpu0",
            "training.recipe.device=gpu0: no such device here; cpu, or",
        ),
        ("+training.recipe.start=nowhere", "training.recipe.start=nowhere is not there"),
        ("training.recipe.workers=-1", "training.recipe.workers=-1 must be >= 0"),
        (
            "training.recipe.stages.full.min_fill=0.99",
            "training.recipe.stages.full.lengths.32=0.15: none of 10,000 samples fits",
        ),
        ("training.recipe.stages.full.until=abc", "stages.full.until='abc' is not of type float"),
        ("training.spec.rope_theta=0", "training.spec.rope_theta=0 must be > 0"),
        ("+training.spec.block_size=-1", "training.spec.block_size=-1 must be >= 1"),
        ("training.spec.n_kv_heads=4", "n_heads=6 is not a multiple of n_kv_heads=4"),
        ("training.spec.mask_id=5", r"training.spec.mask_id: 5 is not the tokenizer's <.mask.>, 0"),
        ("+training.spec.attention=causal", "trains a model with attention=full .* causal and 0"),
        (
            "training.recipe.objective.tokens=[99999]",
            "recipe.objective.tokens=.*: 99999 is outside",
        ),
        ("training.recipe.objective.tokens=[]", "training.recipe.objective.focused=0.25: "),
        (
            "training.recipe.objective._target_=dllm.training.optimizers.Rates",
            "training.recipe.objective",
        ),
        (
            "training.recipe.stages.full.until=0.01",
            r"training.recipe.stages.full.until=0.01 is outside \(0.11, 1\]",
        ),
        ("tokenizer=README.md", "tokenizer=README.md is no tokenizer.json"),
        ("training.spec.max_positions=64", "max_positions=64 is less than the recipe's longest"),
    ],
)
def test_a_model_that_cannot_be_is_one_line(tmp_path, option: str, words: str) -> None:
    given = [option, f"output={tmp_path}", "model=tiny-llada", "tracker=none"]
    with pytest.raises(ConfigError, match=words):
        execute(compose(given, "train"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["model=tiny-sdar", "training.recipe.objective.block=16"],
            "training.recipe.objective.block=16 is not the block_size=8 of the model's attention",
        ),
        (
            ["model=tiny-wedlm", "training.recipe.objective.block=0"],
            "training.recipe.objective.block=0 must be >= 1",
        ),
        (
            ["model=tiny-wedlm", "training.recipe.objective.ar_weight=-3"],
            "training.recipe.objective.ar_weight=-3 must be >= 0",
        ),
        (
            ["training.recipe.objective={_target_: dllm.training.block_noise.BlockNoise}"],
            "training.recipe.objective",
        ),
        (
            ["model=smollm2-diffusion", "training.base=tiny-llada"],
            "training.base=tiny-llada is not autoregressive",
        ),
    ],
)
def test_a_contradiction_is_one_line(tmp_path, options: list[str], words: str) -> None:
    given = [*options, f"output={tmp_path}", "tracker=none"]
    with pytest.raises(ConfigError, match=words) as refused:
        execute(compose(given, "train"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "answers.jsonl").exists()


def test_nothing_to_export_is_one_line(tmp_path) -> None:
    config = compose(["tracker=none", f"output={tmp_path}", f"export={tmp_path / 'm'}"], "train")
    with pytest.raises(ConfigError, match="holds no saved state to export"):
        execute(config)
    assert not list(tmp_path.iterdir())


def test_export_writes_a_checkpoint_and_its_card(tmp_path) -> None:
    folder = tmp_path / "tiny"
    options = [*SMALL, f"output={tmp_path / 'run'}", "training.recipe.total_steps=2"]
    execute(compose(options, "train"))
    execute(
        compose([*options, f"export={folder}", "export_items=1", "machine=a calculator"], "train")
    )
    card = (folder / "README.md").read_text()
    assert "| copy | 0.000 | 0.97 | missed by 0.970 |" in card
    assert "| steps, sequences, tokens | 2, " in card
    assert "(arithmetic 80, json 64, others 24), float32 arithmetic" in card
    assert f"Measured by `python -m dllm.training.export {folder.name} --items 1`." in card
    assert str(tmp_path) not in card
    assert " min on a calculator |" in card
    shipped = EMBEDDED / "tiny-llada"
    names = {"config.json", "model.safetensors", "README.md", *TOKENIZER_FILES}
    assert {path.name for path in folder.iterdir()} == names
    for name in TOKENIZER_FILES:
        assert (folder / name).read_bytes() == (shipped / name).read_bytes()


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-sdar", "tiny-wedlm", "tiny-ar"])
def test_a_card_tells_the_objective_of_the_recipe(name: str) -> None:
    config = compose(["tracker=none", f"model={name}"], "train")
    told = objective_of(build(config.training.recipe, "training.recipe"))
    assert f"| objective | {told} |\n" in (EMBEDDED / name / "README.md").read_text()


class Recorder:
    """The part of a tracker that a metric log uses."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, values, axis, step) -> None:
        self.steps.append(step)


def test_the_log_drops_what_is_ahead_of_the_saved_state(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    tracker = Recorder()
    log = MetricLog(path, tracker, done=1)
    log.log({"loss": 1.5}, step=2)
    log.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [3.0, 1.5]
    assert tracker.steps == [1, 2]


def test_a_log_that_is_none_is_one_line(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("no metrics}\n")
    with pytest.raises(ConfigError, match=r"metrics\.jsonl is damaged: remove it or choose"):
        MetricLog(path, Recorder(), done=1)  # type: ignore[arg-type]
    assert path.read_text() == "no metrics}\n"


@pytest.mark.slow
def test_the_same_command_after_a_kill_ends_as_if_undisturbed(tmp_path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(*SMALL, f"output={whole}"), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(
        command(*SMALL, f"output={cut}"), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not (cut / "metrics.jsonl").is_file() or len(losses(cut)) < 10:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(losses(cut)) < 60
    subprocess.run(command(*SMALL, f"output={cut}"), cwd=ROOT, check=True, capture_output=True)
    assert losses(cut) == losses(whole)
    assert len(losses(whole)) == 60
    for name in ("model.safetensors", "config.json"):
        assert (cut / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()


def losses(folder: Path) -> list[float]:
    """Loss of each step logged so far."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [line["loss"] for line in found if "loss" in line]
