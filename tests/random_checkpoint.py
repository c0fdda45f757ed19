"""Checkpoints of random weights with the tokenizer of the embedded models."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_decoding import SPEC, random_model

from dllm.models.loading import save_model


TOKENIZER = Path(__file__).parents[1] / "dllm" / "models" / "tiny" / "tiny-llada"


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """Random weights in the public layout; `changes` go to the spec."""
    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text())
    size = max(
        *vocabulary["model"]["vocab"].values(), *(t["id"] for t in vocabulary["added_tokens"])
    )
    given = {"vocab_size": size + 1, "max_positions": 256, **changes}
    save_model(random_model(replace(SPEC, **given)), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    return folder


def small_run(checkpoint: Path, output: Path, *more: str) -> list[str]:
    """Command-line options of a quiet run of six short answers; more are added behind."""
    return [
        f"model.path={checkpoint}",
        f"output={output}",
        "task=listops",
        "tracker=none",
        "progress=false",
        "gen_length=8",
        "sampler.region.block_length=8",
        "limit=6",
        "batch_size=2",
        *more,
    ]
