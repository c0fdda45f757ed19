"""Dream-v0, Dream-Coder-v0 and DiffuCoder: a Qwen2.5 body run without the causal mask, logits
shifted.

Format of Dream-org/Dream-* and apple/DiffuCoder-*. The diffusion training used 2,048 positions
[second hand, of the model card] although config.json says 131,072.
"""

from typing import Any

from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import ModelSpec


MASK_ID = 151666
IM_END = 151645
TRAINED_POSITIONS = 2048


def read(config: CheckpointConfig) -> ModelSpec:
    fields = qwen_layout.body(config, "dream")
    eos_ids = config.eos_ids(fields["vocab_size"], stops=(IM_END,))
    return ModelSpec(
        family="dream",
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=config.mask_id(MASK_ID, fields["vocab_size"]),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        qkv_bias=True,
        logit_shift=1,
        trained_positions=min(TRAINED_POSITIONS, fields["max_positions"]),
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    return {
        "architectures": ["DreamModel"],
        "model_type": "Dream",
        **qwen_layout.body_keys(spec),
        "use_mrope": False,
    }


FAMILY = Family(
    name="dream",
    architectures=("DreamModel",),
    model_types=("Dream",),
    marks=("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias"),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="chatml",
)
