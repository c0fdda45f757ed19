"""What holds for every forward that a policy plans, whatever the rule asks for."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scripted import built
from tiny_decoding import NOISE, SPEC, ragged_prompts, random_model
from torch import Tensor
from walk import Walk

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.plan import Plan, Request, pad_positions
from dllm.step.prediction import Prediction


BLOCKS = replace(SPEC, attention="block_causal", block_size=4)
THREES = replace(BLOCKS, block_size=3)
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


def changed(walk: Walk, *positions: int) -> list[int]:
    """Those of the positions at which a second canvas may differ: the others are stored, and their
    keys stand for the first one only."""
    found = []
    for position in positions:
        branches = np.repeat(walk.canvas.tokens[:, None], 3, axis=1)
        branches[0, 1, position] = 11
        branches[0, 2] = -1  # one that is not there
        request = Request(pad_positions(walk.canvas.masked() & walk.canvas.in_block()), branches)
        try:
            plan = walk.policy.plan(walk.canvas, request, walk.store)[-1]
        except ConfigError as error:
            assert str(error) == (
                "cache: the sampler's alternative canvases change cached positions (e.g. the "
                "prompt under cfg_scale > 0); use cache=none"
            )
            continue
        fed = plan.slots[1].tolist()
        assert plan.tokens[1, fed.index(position)] == 11
        found.append(position)
    return found


@pytest.mark.parametrize(
    ("cache", "spec", "fed"),
    [
        ("none", SPEC, range(12)),
        ("prefix", SPEC, range(6, 12)),
        ("dual", SPEC, range(6, 9)),
        ("vicinity cache.prefix_look=0 cache.after_look=0", SPEC, range(6, 9)),
        ("vicinity cache.prefix_look=1 cache.after_look=2", SPEC, range(5, 11)),
        ("dkv", SPEC, (6, 9, 10, 11)),
        ("dkv cache.variant=prefill", SPEC, range(3, 12)),
        ("block", THREES, range(6, 9)),
        ("window", SPEC, range(6, 9)),
        ("causal", CAUSAL, (6, 7, 8)),
    ],
)
def test_a_second_canvas_differs_in_what_is_fed(
    cache: str, spec: ModelSpec, fed: Sequence[int]
) -> None:
    """Prompt [0, 3), a block [3, 6) that is decided, then the current one, [6, 9), of an answer
    that ends at 12. Behind it nothing is stored where no block sees the next ones."""
    options = f"cache={cache}".replace("vicinity", "vicinity cache.warmup_steps=0").split()
    walk, predictor = Walk(*options, masks=9, spec=spec), Predictor(random_model(spec))
    walk.canvas.attention_block[:] = spec.block_size or 0
    walk.canvas.tokens[0, 0] = 0  # a token as any other: an absent canvas begins with -1
    walk.canvas.tokens[0, 3:6] = 9
    walk.canvas.enter_block(0, 6, 9)
    for position in (7, 8, None):
        for plan in walk.plans([6]):
            predictor.predict(plan, walk.store)
        if position is not None and cache == "dkv":
            walk.decide(position)
        elif position is not None:
            walk.canvas.step += 1
            walk.canvas.step_in_block += 1
    positions = range(12 if spec is SPEC else 9)
    assert changed(walk, *positions) == list(fed)


@pytest.mark.parametrize(
    ("cache", "line"),
    [
        (
            "d2cache",
            "cache=D2Cache follows one canvas per sequence; the sampler asks for alternative ones "
            "(cfg_scale > 0, drafts): use cache=none",
        ),
        (
            "dllm_cache",
            "cache=DLLMCache keeps the outputs of one canvas per sequence; the sampler asks for "
            "alternative ones (cfg_scale > 0, drafts): use cache=none",
        ),
    ],
)
def test_caches_of_one_canvas(cache: str, line: str) -> None:
    walk = Walk(f"cache={cache}", masks=4)
    request = Request(pad_positions(walk.canvas.masked()), walk.canvas.tokens[:, None])
    with pytest.raises(ConfigError) as error:
        walk.policy.plan(walk.canvas, request, walk.store)
    assert str(error.value) == line
