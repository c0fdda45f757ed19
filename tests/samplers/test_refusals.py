"""What samplers refuse beside single ranges, word by word: options that contradict each other, the
answer, the tokenizer or the model."""

import re
from dataclasses import replace

import pytest
from scripted import built
from tiny_decoding import MASK, SPEC

from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED
from dllm.models.tokenizers import load_tokenizer
from dllm.step.canvas import Prompt


CAUSAL = replace(SPEC, attention="causal", logit_shift=1)
TRAINED = replace(SPEC, attention="block_causal", block_size=4)
PREDICTS = "(a causal model reads as {} with logit_shift=1)"
GUIDED = "is guided (cfg_scale > 0): drafts take the place of its canvases without the prompt"


def refused(options: str) -> pytest.RaisesExc[ConfigError]:
    return pytest.raises(ConfigError, match=f"^{re.escape(options)}$")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "bacd sampler.confidence_lower=0.75 sampler.confidence_upper=0.5",
            "sampler.confidence_lower=0.75 exceeds sampler.confidence_upper=0.5",
        ),
        (
            "rho_eos sampler.low_density=0.75 sampler.high_density=0.5",
            "sampler.low_density=0.75, high_density=0.5 are not 0 <= low <= high <= 1",
        ),
        (
            "rho_eos sampler.low_density=-0.5",
            "sampler.low_density=-0.5, high_density=0.6 are not 0 <= low <= high <= 1",
        ),
        (
            "rho_eos sampler.high_density=1.5",
            "sampler.low_density=0.4, high_density=1.5 are not 0 <= low <= high <= 1",
        ),
        (
            "sdar sampler.per_step=2 sampler.denoising_steps=4",
            "sampler.per_step=2 and sampler.denoising_steps=4 are two quotas: leave one of them at "
            "its default",
        ),
        (
            "diffusion_gemma sampler.t_min=0.5 sampler.t_max=0.5",
            "sampler.t_max=0.5 must be above sampler.t_min=0.5",
        ),
        (
            "d3llm sampler/region=aligned",
            "sampler.region=AlignedBlocks: sampler=D3LLM needs blocks of one length from the end "
            "of the prompt (sampler/region=fixed)",
        ),
        (
            "oracle sampler/proposer=gumbel",
            "sampler.proposer=Gumbel draws at random: use greedy",
        ),
        (
            "ete sampler/proposer@sampler.base.proposer=gumbel",
            "sampler.base.proposer=Gumbel draws at random: use greedy",
        ),
        (
            "ete sampler@sampler.base=klass",
            "sampler.base=Klass does not say what it is sure of (none that revokes tokens can): "
            "use threshold, factor, localleap, dinfer_threshold or credit",
        ),
        (
            "freedave sampler/proposer@sampler.base.proposer=gumbel",
            "sampler.base.proposer=Gumbel draws at random: use greedy",
        ),
        (
            "freedave sampler@sampler.base=klass",
            "sampler.base=Klass remembers earlier steps: drafts can't follow it",
        ),
        ("freedave sampler.base.cfg_scale=1.0", f"sampler.base=LowConfidence {GUIDED}"),
        (
            "opening sampler@sampler.base=dystruct",
            "sampler.base=Dystruct plans its commits ahead: no other rule may add to them or take "
            "from them",
        ),
        (
            "deer +sampler/logits_transform=credit",
            "sampler.logits_transform=TraceCredit would be read from two models: use null",
        ),
        *(
            (
                f"{name} sampler/proposer=categorical",
                "sampler.proposer=Categorical has no probabilities to verify drafts by: use "
                "greedy, gumbel or filtered",
            )
            for name in ("deer", "prompt_lookup")
        ),
        (
            "threshold +schedule@sampler.threshold=linear sampler.threshold.slope=0.5",
            "sampler.threshold.slope=0.5 does not lead from start=1.0 to end=0.8",
        ),
        (
            "threshold +schedule@sampler.threshold=per_block sampler.threshold.values_by_block=[]",
            "sampler.threshold.values_by_block=[] must hold at least one value",
        ),
        (
            "wedlm sampler.entropy_threshold=0",
            "sampler.entropy_threshold=0 must be > 0 (null = one token per step)",
        ),
        ("wedlm sampler.stop_sequences=[[]]", "sampler.stop_sequences holds an empty sequence"),
        (
            "wedlm sampler.stop_sequences=[[3],[]]",
            "sampler.stop_sequences holds an empty sequence",
        ),
    ],
)
def test_options_that_contradict_each_other(options: str, line: str) -> None:
    with refused(line):
        built(*f"sampler={options}".split())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "dream_entropy sampler/region=fixed sampler.region.block_length=8",
            "sampler.region: Dream's time schedule is global, it needs one block "
            "(sampler.region.block_length=null)",
        ),
        (
            "freedave sampler.base.region.block_length=8 sampler.base.steps=8",
            "sampler.base.steps=8 must be gen_length=16: drafts grow by one position",
        ),
        (
            "learn2pd sampler.filter=tiny-llada sampler.region.block_length=64",
            "sampler.filter=tiny-llada was trained for block_length=32, the region has "
            "block_length=64",
        ),
        (
            "learn2pd sampler.filter=tiny-llada sampler.region.block_length=4",
            "sampler.filter=tiny-llada was trained for block_length=32, the region has "
            "block_length=4 (sampler.narrow_blocks=pad allows it)",
        ),
        (
            "window sampler@sampler.base=low_confidence sampler.base.steps=4 sampler.active=3 "
            "sampler.base.region.block_length=null",
            "sampler.active=3 is less than the 4 tokens per step of sampler.base.steps=4",
        ),
    ],
)
def test_answers_that_options_do_not_fit(options: str, line: str) -> None:
    length = 64 if "block_length=64" in options else 16
    rule = built(*f"sampler={options}".split())
    with refused(line):
        rule.validate(length)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "deer sampler.separator=nowhere",
            "sampler.separator='nowhere' is no token of this tokenizer: use one of its special "
            "tokens (a text or a number), or null",
        ),
        (
            "deer sampler.separator=5",
            "sampler.separator=5 is an ordinary token, which no draft could hold any more: use a "
            "special token (a text or a number), or null",
        ),
        (
            "tccf sampler.think_end=nowhere",
            "sampler.think_end=nowhere is no single token of the tokenizer",
        ),
        (
            "adablock sampler.region.delimiters=[nowhere]",
            "sampler.region.delimiters=['nowhere']: the tokenizer has no token 'nowhere'; give "
            "texts of single tokens, or delimiter_ids",
        ),
    ],
)
def test_texts_that_the_tokenizer_has_no_token_for(options: str, line: str) -> None:
    rule = built(*f"sampler={options}".split())
    with refused(line):
        rule.with_tokenizer(load_tokenizer(EMBEDDED / "tiny-llada"))


@pytest.mark.parametrize(
    ("options", "spec", "line"),
    [
        *(
            (
                f"deer sampler.separator={token}",
                SPEC,
                f"sampler.separator={token} must be one of the model's 24 tokens, and neither its "
                "mask nor an end token",
            )
            for token in (24, -1, MASK, *SPEC.eos_ids)
        ),
        (
            "ete sampler.ahead=1",
            TRAINED,
            "sampler.ahead=1: with block-causal attention no block sees the next ones; use "
            "sampler.ahead=0",
        ),
        (
            "freedave sampler.eager=true",
            SPEC,
            "sampler.eager=true needs block-causal attention, the model's is full: use "
            "sampler.eager=false",
        ),
        (
            "prompt_lookup",
            SPEC,
            "sampler=prompt_lookup verifies by next tokens under causal attention; the model's "
            f"attention is full with a shift of 0 {PREDICTS.format('autoregressive')}",
        ),
        (
            "wedlm",
            SPEC,
            "sampler=WeDLM needs a causal model; the model's attention is full",
        ),
        *(
            (options.format(token), spec, f"sampler.{options.split('=')[0].split('.')[1]}: {why}")
            for options, spec in (
                ("low_confidence sampler.eot_ids=[4,{}]", SPEC),
                ("eotp sampler.end_ids=[4,{}]", SPEC),
                ("tccf sampler.critic_ids=[4,{}]", SPEC),
                ("wedlm sampler.stop_sequences=[[3],[4,{}]]", CAUSAL),
            )
            for token, why in (
                (24, "token id 24 is outside the vocabulary [0, 24)"),
                (-1, "token id -1 is outside the vocabulary [0, 24)"),
                (MASK, f"token id {MASK} is the model's mask token"),
            )
        ),
    ],
)
def test_models_that_options_do_not_fit(options: str, spec: object, line: str) -> None:
    rule = built(*f"sampler={options}".split())
    with refused(line):
        rule.check_model(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [SPEC, replace(CAUSAL, logit_shift=0)])
def test_verifiers_that_do_not_predict_the_next_token(other: object) -> None:
    rule = built("sampler=deer")
    rule.check_other("verifier", CAUSAL, SPEC)
    with refused(
        "sampler.verifier=tiny-ar must predict the next token under causal attention; its "
        f"attention is {other.attention} with a shift of {other.logit_shift} "  # type: ignore[attr-defined]
        f"{PREDICTS.format('one')}"
    ):
        rule.check_other("verifier", other, SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "sdar sampler.region.block_length=null",
            "sampler.region.block_length=null: the llada model has no block size",
        ),
        (
            "sdar sampler.region.block_length=8",
            "sampler.region.block_length=8: the model was trained for blocks of 4; allowed are 1 "
            "(causal) and 4, or say model.block_size=8 if the checkpoint was trained for it, or "
            "sampler.region.untrained=allow",
        ),
        ("tccf", "sampler.critic needs a tokenizer; give sampler.critic_ids"),
        (
            "adablock",
            "sampler.region.delimiters=['\\n'] needs a tokenizer; give delimiter_ids",
        ),
    ],
)
def test_canvases_that_can_not_be_laid_out(options: str, line: str) -> None:
    rule = built(*f"sampler={options}".split())
    with refused(line):
        rule.layout(Prompt("", (3,), 8), TRAINED if "=8" in options or options == "tccf" else SPEC)
