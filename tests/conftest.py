"""Random checkpoints, their tokenizer, and options that keep a run short."""

import os
from collections.abc import Callable
from pathlib import Path

import gguf_file
import pytest
import torch
from random_checkpoint import TOKENIZER, small_run, write_checkpoint
from tokenizers import Tokenizer

from dllm.models.packaged import convert


# Threads wait for one another after every small operation: on a busy machine most of the time.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in processes that tests start


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The embedded models'."""
    return Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))


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


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted autoregressive model with a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("llama")
    gguf_file.write(folder / "tiny.gguf", gguf_file.metadata(), gguf_file.tensors())
    convert(folder / "tiny.gguf", folder)
    return folder


@pytest.fixture
def options(checkpoint: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Command-line options of a small, quiet run into the test's folder; more are added behind."""

    def listed(*more: str) -> list[str]:
        return small_run(checkpoint, tmp_path / "runs", *more)

    return listed
