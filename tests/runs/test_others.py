"""Models that a sampler names, in a run: found, compared with the run's own, counted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.adapter import Adapted, AdapterSpec, save_adapter
from dllm.models.hub import EMBEDDED, ModelOptions
from dllm.models.loading import load_model
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder
from dllm.runs.others import options_of


def run(folder: Path, sampler: str, *options: str) -> tuple[RunFolder, dict[str, Any]]:
    config = compose(
        [
            f"sampler={sampler}",
            "task=listops",
            "limit=3",
            "batch_size=3",
            "tracker=none",
            "baseline=false",
            "progress=false",
            f"output={folder}",
            *options,
        ]
    )
    path, summary = execute(config, sampler)
    return RunFolder(path), summary


def answers(folder: RunFolder) -> list[list[int]]:
    return [sample.tokens for sample in sorted(folder.samples(), key=lambda sample: sample.id)]


@pytest.mark.parametrize("drafter", ["tiny-llada", "tiny-wedlm"])
def test_the_verifier_s_own_answers(drafter: str, tmp_path: Path) -> None:
    own, plain = run(tmp_path, "left_to_right", "model=tiny-ar", "cache=causal")
    drafted, summary = run(tmp_path, "deer", f"model={drafter}", "sampler.draft_length=8")
    assert answers(own) == answers(drafted)
    metrics = summary["metrics"]
    verified = metrics["other_forwards"]["verifier step"]
    assert metrics["nfe"] == verified < plain["metrics"]["nfe"] / 2
    # The verifier's weights are part of what the run is.
    assert any(name.startswith("verifier: ") for name in drafted.identity()["model"])


@pytest.mark.parametrize("name", ["nan", "1e5", "a,b", "it's [1]"])
def test_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(EMBEDDED / "tiny-ar", folder)
    sampler = build(compose(["sampler=deer"]).sampler, "sampler")
    found = options_of(replace(sampler, verifier=str(folder)), "verifier", compose())
    assert (found.path, found.name, found.dtype) == (str(folder), name, "float32")


@pytest.mark.parametrize(
    ("verifier", "words"),
    [
        ("tiny-wedlm", "sampler.verifier=tiny-wedlm must predict the next token"),
        ("tiny-llada", "sampler.verifier=tiny-llada must predict the next token"),
        ("absent", "sampler.verifier=absent is no folder and not one of "),
        ("", "sampler.verifier= is empty"),
        (str(Path(__file__).parent), "^sampler.verifier=.*/runs holds no config.json"),
    ],
)
def test_a_verifier_that_does_not_fit(verifier: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, "deer", f"sampler.verifier={verifier}")
    assert not list(tmp_path.iterdir())


def test_an_adapted_drafter_shares_its_base_s_weights(tmp_path: Path) -> None:
    """The verifier is the drafter without its adapter."""
    base, adapter = EMBEDDED / "tiny-ar", tmp_path / "adapter"
    spec = AdapterSpec(base="tiny-ar", rank=2, scale=1.0, mask_id=0, block_size=8)
    made = Adapted(load_model(base), spec, seed=0)
    save_adapter(adapter, spec, made.tensors())
    options = ModelOptions(name="mine", path=str(base), adapter=str(adapter))
    own, other = Checkpoint(options), Checkpoint(ModelOptions(name="tiny-ar", path=str(base)))
    own.share(other)
    shared = {weight.data_ptr() for weight in own.predictor.model.parameters()}
    assert {weight.data_ptr() for weight in other.predictor.model.parameters()} <= shared
    model = ["model=checkpoint", f"model.path={base}", f"model.adapter={adapter}"]
    model += ["model.dtype=float32", "model.device=cpu", "sampler/region=aligned"]
    plain, _ = run(tmp_path / "runs", "left_to_right", "model=tiny-ar", "cache=causal")
    drafted, _ = run(tmp_path / "runs", "deer", *model, f"sampler.verifier={base}")
    answers = [
        [s.tokens for s in sorted(f.samples(), key=lambda s: s.id)] for f in (plain, drafted)
    ]
    assert answers[0] == answers[1]


def test_a_verifier_of_another_vocabulary(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shipped = Path(__file__).parents[2] / "dllm" / "models" / "tiny" / "tiny-wedlm"
    other.mkdir()
    for path in shipped.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["!"], vocabulary["#"] = vocabulary["#"], vocabulary["!"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="tiny-llada: 2 of its 854 tokens differ"):
        run(tmp_path / "runs", "deer", f"sampler.verifier={other}")
