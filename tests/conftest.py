"""Random checkpoints with the shipped tokenizer, and options that keep a run short."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_decoding import SPEC, random_model


os.environ.setdefault("OMP_NUM_THREADS", "1")

TOKENIZER = Path(__file__).parents[1] / "dllm" / "models" / "tiny" / "tiny-llada"


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """Random weights in the public layout; `changes` go to the spec."""
    from dataclasses import replace

    from dllm.models.loading import save_model

    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text())
    size = max(
        *vocabulary["model"]["vocab"].values(), *(t["id"] for t in vocabulary["added_tokens"])
    )
    given = {"vocab_size": size + 1, "max_positions": 256, **changes}
    save_model(random_model(replace(SPEC, **given)), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def short_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 48 positions."""
    return write_checkpoint(tmp_path_factory.mktemp("short"), max_positions=48)


@pytest.fixture(scope="session")
def block_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block-causal model with blocks of four."""
    kind = {"family": "sdar", "attention": "block_causal", "block_size": 4, "qk_norm": True}
    return write_checkpoint(tmp_path_factory.mktemp("blocks"), rope_fp32=False, **kind)


@pytest.fixture
def options(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Command-line options of a small, quiet run into the test's folder; more are added behind."""

    def listed(*more: str) -> list[str]:
        return [
            f"model.path={checkpoint}",
            f"output={tmp_path / 'runs'}",
            "tracker=none",
            "progress=false",
            "gen_length=8",
            "sampler.region.block_length=8",
            "limit=6",
            "batch_size=2",
            *more,
        ]

    return listed
