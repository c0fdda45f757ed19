"""Autoregressive Qwen2 and Qwen3 models, used to verify drafts and to grow answers token by token.

Format of Qwen/Qwen2.5-*, Qwen/Qwen3-*. They have no mask token; an unused id may
be given as one (`model.mask_id`), as of a Llama model.
"""

from typing import Any

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import NO_MASK, ModelSpec


QWEN2, QWEN3 = "Qwen2ForCausalLM", "Qwen3ForCausalLM"


def read(config: CheckpointConfig) -> ModelSpec:
    fields = qwen_layout.body(config, "autoregressive")
    eos_ids = config.eos_ids(fields["vocab_size"])
    name = (config.get("architectures") or [config.get("model_type", "")])[0]
    qwen2 = name.lower().startswith("qwen2")
    if config.get("attention_bias", qwen2) != qwen2:
        raise ConfigError(
            f"{config.source}: attention_bias={config['attention_bias']}, "
            f"{'Qwen2' if qwen2 else 'Qwen3'} needs {qwen2}"
        )
    given = config.overrides.mask_id
    return ModelSpec(
        family="autoregressive",
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=NO_MASK if given is None else given,
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        qkv_bias=qwen2,
        qk_norm=not qwen2,
        attention="causal",
        logit_shift=1,
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    name, kind = (QWEN3, "qwen3") if spec.qk_norm else (QWEN2, "qwen2")
    return {"architectures": [name], "model_type": kind, **qwen_layout.body_keys(spec)}


FAMILY = Family(
    name="autoregressive",
    architectures=(QWEN2, QWEN3),
    model_types=("qwen2", "qwen3"),
    marks=("model.embed_tokens.weight",),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="qwen3",
    mask_in_tokenizer=False,
)
