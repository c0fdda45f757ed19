"""The tokenizer of the embedded models."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

import dllm.models


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    folder = Path(dllm.models.__file__).parent / "tiny" / "tiny-llada"
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
