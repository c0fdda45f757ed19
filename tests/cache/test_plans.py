"""What holds for every forward that a policy plans, whatever the rule asks for."""

from dataclasses import replace

import pytest
from scripted import built
from tiny_decoding import NOISE, SPEC, ragged_prompts, random_model
from torch import Tensor

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction


BLOCKS = replace(SPEC, attention="block_causal", block_size=4)
CAUSAL = replace(SPEC, attention="causal")
THRESHOLD = "sampler=threshold sampler.region.block_length=4 sampler.threshold=0.3"
DRAFTS = "sampler=freedave sampler.base.region.block_length=4"
GEMMA = "sampler=diffusion_gemma sampler.max_denoising_steps=3"
TWINS = "sampler=wino sampler.region.block_length=4"
CASES: list[tuple[str, str, ModelSpec]] = [
    ("none", THRESHOLD, SPEC),
    ("none", THRESHOLD, BLOCKS),
    ("none", THRESHOLD, CAUSAL),
    ("none", DRAFTS, SPEC),
    ("none", TWINS, SPEC),
    ("none", GEMMA, NOISE),
    ("encoder", GEMMA, NOISE),
    ("prefix", THRESHOLD, SPEC),
    ("dual", THRESHOLD, SPEC),
    ("dual", DRAFTS, SPEC),
    ("vicinity", THRESHOLD, SPEC),
    ("window", THRESHOLD, SPEC),
    ("window_dream", THRESHOLD, SPEC),
    ("dkv", THRESHOLD, SPEC),
    ("d2cache", THRESHOLD, SPEC),
    ("dllm_cache", THRESHOLD, SPEC),
    ("block", THRESHOLD, BLOCKS),
    ("block", DRAFTS, BLOCKS),
    ("causal", THRESHOLD, CAUSAL),
]


class Checked(Predictor):
    """Looks at every plan."""

    plans = 0

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        self.plans += 1
        real = plan.slots >= 0
        assert plan.padded == (not real.all())
        assert (plan.positions >= 0).all()
        assert ((plan.tokens >= 0) & (plan.tokens < self.spec.vocab_size)).all()
        if isinstance(plan.within, Tensor):
            assert plan.within.shape == (*plan.slots.shape, plan.slots.shape[1])
        else:
            assert plan.within in ("full", "causal")
        if isinstance(plan.write, Tensor):
            assert plan.write.shape == plan.slots.shape and not plan.write[~real].any()
        else:
            assert plan.write in ("none", "all")
        for slots, own in zip(plan.slots, real, strict=True):
            assert slots[own].unique().numel() == own.sum()
        if plan.partial is None:
            rows = real.sum(dim=1).view(-1, len(plan.fed)).sum(dim=0)
            assert plan.fed.tolist() == rows.tolist()
        return super().predict(plan, store)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("cache", "options", "spec"), CASES)
def test_plans_say_what_they_feed(
    cache: str, options: str, spec: ModelSpec, batch_size: int
) -> None:
    """Each row once, real tokens only; padding and cost as they are."""
    predictor = Checked(random_model(spec))
    policy = build(compose([f"cache={cache}"]).cache, "cache")
    decoder = Decoder(predictor, built(*options.split()), policy, batch_size=batch_size)
    prompts = ragged_prompts(3)
    outcomes = list(decoder.decode(prompts))
    assert len(outcomes) == len(prompts)
    assert not any(outcome.failure for outcome in outcomes)
    assert predictor.plans
