"""A tiny DiffusionGemma of random weights, written by transformers itself."""

import json
from functools import cache
from pathlib import Path

import torch
from tiny_checkpoints import CONFIGS
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
from transformers.utils import logging

from dllm.config import build, compose
from dllm.step.sampler import Sampler


BLOCK, IMAGE, VOCABULARY = 8, 62, 64
TEXT = CONFIGS["diffusion_gemma"]["text_config"] | {"eos_token_id": 1, "pad_token_id": 0}
logging.disable_progress_bar()


def write_checkpoint(folder: Path) -> Path:
    """Weights that are sure of some tokens; no more, or rounding would grow from step to step."""
    config = DiffusionGemmaConfig(
        text_config={**TEXT, "vocab_size": VOCABULARY},
        vision_config={
            "model_type": "gemma4_vision",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "position_embedding_size": 8,
        },
        canvas_length=BLOCK,
        image_token_id=IMAGE,
        boi_token_id=60,
        eoi_token_id=61,
    )
    model = DiffusionGemmaForBlockDiffusion(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in (*model.named_parameters(), *model.named_buffers()):
            if weight.dim() > 1:
                width = 0.5 if "embed_tokens" in name else 0.1
                weight.normal_(0.0, width, generator=generator)
            elif name.endswith(("norm.weight", "scale", "layer_scalar")) and "embed" not in name:
                weight.uniform_(0.5, 1.5, generator=generator)
    model.tie_weights()
    model.save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [1, 9]}))
    return folder


def gemma_rule(*options: str) -> Sampler:
    """`sampler=diffusion_gemma` with these options."""
    return build(compose(["sampler=diffusion_gemma", *options]).sampler, "sampler")


@cache
def stock(folder: Path) -> DiffusionGemmaForBlockDiffusion:
    return DiffusionGemmaForBlockDiffusion.from_pretrained(folder).eval()
