"""Fast-dLLM v2: a Qwen2.5 body fine-tuned to block diffusion, logits shifted.

Format of Efficient-Large-Model/Fast_dLLM_v2_*. The public config.json has no mask id (151665 by
default); the official forward takes its block length as an argument, `bd_size` is what it was
trained with. The 1.5B model has no LM head of its own. A block's first token is predicted by the
last row of the finished block before it; the official loop commits it without a test, as
`sampler=opening` does.
"""

from typing import Any

from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import ModelSpec


MASK_ID = 151665
BLOCK_SIZE = 32
IM_END = 151645


def read(config: CheckpointConfig) -> ModelSpec:
    fields = qwen_layout.body(config, "fast_dllm_v2")
    eos_ids = config.eos_ids(fields["vocab_size"], stops=(IM_END,))
    return ModelSpec(
        family="fast_dllm_v2",
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=config.mask_id(MASK_ID, fields["vocab_size"]),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        qkv_bias=True,
        attention="block_causal",
        block_size=config.block_size("bd_size", BLOCK_SIZE),
        logit_shift=1,
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    return {
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        "model_type": "Fast_dLLM_Qwen",
        **qwen_layout.body_keys(spec),
        "bd_size": spec.block_size,
    }


FAMILY = Family(
    name="fast_dllm_v2",
    architectures=("Fast_dLLM_QwenForCausalLM",),
    model_types=("Fast_dLLM_Qwen",),
    marks=("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias"),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="chatml_qwen",
)
