"""Models that a sampler names, in a run: found, compared with the run's own, counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


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


@pytest.mark.parametrize("drafter", ["tiny-llada", "tiny-wedlm"])
def test_the_verifier_s_own_answers(drafter: str, tmp_path: Path) -> None:
    own, plain = run(tmp_path, "left_to_right", "model=tiny-wedlm-ar", "cache=causal")
    drafted, summary = run(tmp_path, "deer", f"model={drafter}", "sampler.draft_length=8")
    answers = [[s.tokens for s in sorted(f.samples(), key=lambda s: s.id)] for f in (own, drafted)]
    assert answers[0] == answers[1]
    metrics = summary["metrics"]
    verified = metrics["other_forwards"]["verifier step"]
    assert metrics["nfe"] == verified < plain["metrics"]["nfe"] / 2
    # The verifier's weights are part of what the run is.
    assert any(name.startswith("verifier: ") for name in drafted.identity()["model"])


@pytest.mark.parametrize(
    ("verifier", "words"),
    [
        ("tiny-wedlm", "sampler.verifier=tiny-wedlm must predict the next token"),
        ("tiny-llada", "sampler.verifier=tiny-llada must predict the next token"),
        ("absent", "sampler.verifier=absent is no folder and not one of "),
    ],
)
def test_a_verifier_that_does_not_fit(verifier: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        run(tmp_path, "deer", f"sampler.verifier={verifier}")
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(ConfigError, match="tiny-llada: 2 of 854 tokens differ"):
        run(tmp_path / "runs", "deer", f"sampler.verifier={other}")
