"""DEER with checkpoints that transformers has written: the greedy tokens of its own `generate`."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED
from dllm.models.tokenizers import load_tokenizer
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


GEN_LENGTH = 12
SHAPE = {
    "vocab_size": 854,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def saved(kind: str, folder: Path, **changes: Any) -> Any:
    """A model of random weights in a folder, with the tokenizer of the embedded models."""
    torch.manual_seed(3)
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**SHAPE | ids | changes)
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    stock = getattr(transformers, name)(config).eval()
    stock.save_pretrained(folder)
    for path in (EMBEDDED / "tiny-ar").glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return stock


def run(folder: Path, verifier: Path) -> RunFolder:
    config = compose(
        [
            "sampler=deer",
            f"sampler.verifier={verifier}",
            "sampler.draft_length=4",
            "task=listops",
            "limit=3",
            f"gen_length={GEN_LENGTH}",
            "tracker=none",
            "baseline=false",
            "progress=false",
            f"output={folder}",
        ]
    )
    path, _ = execute(config, "deer")
    return RunFolder(path)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {"tie_word_embeddings": True}),
        ("Llama", {"vocab_size": 896}),
        ("Qwen2", {}),
        ("Qwen3", {"head_dim": 16}),
    ],
)
def test_greedy_tokens_are_those_of_generate(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    stock = saved(kind, tmp_path / "model", **changes)
    found = run(tmp_path / "runs", tmp_path / "model").samples()
    tokenizer = load_tokenizer(EMBEDDED / "tiny-llada", "plain")
    stock.generation_config.eos_token_id = None
    # The drafter's mask is no token of an answer, nor are rows without a token.
    never = [0, *range(854, stock.config.vocab_size)]
    for sample in found:
        prompt = torch.tensor([tokenizer.chat(sample.prompt)])
        written = stock.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=GEN_LENGTH,
            suppress_tokens=never,
        )
        assert sample.tokens == written[0, prompt.shape[1] :].tolist()
    assert len({tuple(sample.tokens) for sample in found}) > 1


def test_an_architecture_that_is_not_read_is_refused(tmp_path: Path) -> None:
    saved("GPT2", tmp_path / "model")
    with pytest.raises(ConfigError) as refused:
        run(tmp_path / "runs", tmp_path / "model")
    said = str(refused.value)
    assert "architecture 'GPT2LMHeadModel', model_type 'gpt2' is not supported, only " in said
    assert "LlamaForCausalLM" in said and "\n" not in said
