"""Autoregressive Llama checkpoints (SmolLM2): the base of `smollm2-diffusion`, a verifier, a judge.

Format of HuggingFaceTB/SmolLM2-*. The layout is Qwen2's without biases. There is no mask token; an
unused id may be given as one (`model.mask_id`), which then fills what is still to be decoded: a
causal row never sees it when the tokens come from left to right.
"""

from typing import Any

from dllm.models.config_reader import CheckpointConfig
from dllm.models.families import qwen_layout
from dllm.models.family import Family
from dllm.models.spec import NO_MASK, ModelSpec


ARCHITECTURE = "LlamaForCausalLM"


def read(config: CheckpointConfig) -> ModelSpec:
    config.expect("llama", {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1})
    fields = qwen_layout.body(config, "llama")
    eos_ids = config.eos_ids(fields["vocab_size"])
    given = config.overrides.mask_id
    return ModelSpec(
        family="llama",
        **fields,
        d_ff=config.count("intermediate_size"),
        mask_id=NO_MASK if given is None else given,
        eos_ids=eos_ids,
        pad_id=config.pad_id(eos_ids),
        attention="causal",
        logit_shift=1,
    )


def write(spec: ModelSpec) -> dict[str, Any]:
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        **qwen_layout.body_keys(spec),
    }


FAMILY = Family(
    name="llama",
    architectures=(ARCHITECTURE,),
    model_types=("llama",),
    marks=("model.embed_tokens.weight",),
    read=read,
    write=write,
    weights=qwen_layout.weights,
    chat="smollm2",
    mask_in_tokenizer=False,
)
