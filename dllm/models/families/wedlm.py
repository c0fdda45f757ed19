"""WeDLM: Qwen2.5 (7B) or Qwen3 (8B) bodies with the ordinary causal mask over reordered tokens.

Format of tencent/WeDLM-*. The two official readings of the config disagree about q/k norms, so the
stored tensors decide and a config that contradicts them is refused. In a Qwen3 tokenizer the
default mask id 151665 is a visible token: mask by id, never by text.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import ModelSpec


MASK_ID = 151665
IM_END = 151645
_FIRST = "model.layers.0.self_attn"


def read(config: CheckpointConfig) -> ModelSpec:
    fields = qwen_layout.body(config, "wedlm")
    eos_ids = config.eos_ids(fields["vocab_size"], stops=(IM_END,))
    bias = _stored(config, "attention_bias", f"{_FIRST}.q_proj.bias", default=True)
    return ModelSpec(
        family="wedlm",
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=config.mask_id(MASK_ID, fields["vocab_size"]),
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        qkv_bias=bias,
        qk_norm=_stored(config, "qk_norm", f"{_FIRST}.q_norm.weight", default=not bias),
        attention="causal",
    )


def _stored(config: CheckpointConfig, key: str, tensor: str, default: bool) -> bool:
    """Whether the checkpoint has the tensor; without weights, what the file says."""
    claimed, stored = config.get(key), config.has_tensor(tensor)
    if stored is None:
        return default if claimed is None else claimed
    if claimed is not None and claimed != stored:
        state = "is there" if stored else "is missing"
        raise ConfigError(f"{config.source}: {key}={claimed} but {tensor} {state}")
    return stored


def write(spec: ModelSpec) -> dict[str, Any]:
    return {
        "architectures": ["WeDLMForCausalLM"],
        "model_type": "wedlm",
        **qwen_layout.body_keys(spec),
        "attention_bias": spec.qkv_bias,
        "qk_norm": spec.qk_norm,
    }


FAMILY = Family(
    name="wedlm",
    architectures=("WeDLMForCausalLM",),
    model_types=("wedlm",),
    marks=("model.embed_tokens.weight",),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="chatml_qwen",
    mask_in_tokenizer=False,
)
