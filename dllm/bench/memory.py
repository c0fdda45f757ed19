"""The largest tensor that decoding one block allocates, at LLaDA's vocabulary."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils._python_dispatch import TorchDispatchMode

from dllm import config as configuration
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt


LLADA_VOCABULARY = 126_464


@dataclass(frozen=True)
class Peak:
    largest_mib: float
    """Largest single tensor created during decoding."""
    canvas_mib: float
    """Size a [canvas, vocabulary] float32 tensor would have."""
    block_mib: float
    """Size of the [block, vocabulary] float32 logits that are needed."""


class _Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Iterable[Any] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


def measure(config: DictConfig, prompt_length: int = 480, block: int = 32) -> Peak:
    """Decodes one block behind a long prompt with a small random model of LLaDA's vocabulary."""
    spec = ModelSpec(
        family="llada",
        vocab_size=LLADA_VOCABULARY,
        d_model=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=4,
        head_dim=16,
        d_ff=128,
        norm_eps=1e-5,
        rope_theta=5e5,
        max_positions=1024,
        mask_id=126_336,
        eos_ids=(126_081,),
        pad_id=126_081,
        rope_fp32=True,
    )
    torch.manual_seed(0)
    model = Transformer(spec).eval().requires_grad_(False)
    decoder = Decoder(
        Predictor(model),
        configuration.build(config.sampler, "sampler"),
        configuration.build(config.cache, "cache"),
    )
    prompt = Prompt("memory", tuple(range(prompt_length)), block)
    with _Largest() as largest:
        list(decoder.decode([prompt]))
    mib = LLADA_VOCABULARY * 4 / 2**20
    return Peak(largest.bytes / 2**20, (prompt_length + block) * mib, block * mib)
