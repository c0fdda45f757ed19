"""Options that choose between the authors' code and what they meant: each changes a decoding, and
both sides finish it."""

import pytest
import torch
from scripted import built, distribution
from tiny_decoding import EOS, MASK, canvas_of, ragged_prompts, random_model

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.step.prediction import View


@pytest.mark.parametrize(
    ("options", "switch", "values"),
    [
        (
            "sampler=threshold cache=dllm_cache cache.prompt_interval=4 cache.response_interval=3",
            "cache.always_refresh_first_layer",
            ("true", "false"),
        ),
        (
            "sampler=low_confidence cache=d2cache cache.current_k=2 cache.inflate_w=0 "
            "cache.rollout_p=0.1",
            "cache.fresh_confidence",
            ("false", "true"),
        ),
        (
            "sampler=low_confidence cache=d2cache cache.current_k=2 cache.inflate_w=0 "
            "cache.rollout_p=0.1",
            "cache.search",
            ("masks", "block"),
        ),
        ("sampler=llada2_edit sampler/region=fixed", "sampler.max_passes", ("16", "0")),
    ],
)
def test_both_sides_decode_and_differ(options: str, switch: str, values: tuple[str, str]) -> None:
    found = []
    for value in values:
        given = [*options.split(), "sampler.region.block_length=4", f"{switch}={value}"]
        config = compose(given)
        decoder = Decoder(
            Predictor(random_model()),
            build(config.sampler, "sampler"),
            build(config.cache, "cache"),
            record=True,
        )
        outcomes = sorted(decoder.decode(ragged_prompts()), key=lambda o: o.sample_id)
        assert [outcome.failure for outcome in outcomes] == [None] * len(outcomes)
        # Rows computed are compared, too: a cache may feed others and still commit the same.
        found.append([(outcome.tokens, outcome.cost.rows) for outcome in outcomes])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("proposer", "quirk", "suppressed"),
    [
        ("greedy", "false", True),
        ("greedy", "true", True),
        ("gumbel", "false", True),
        ("gumbel", "true", False),
    ],
)
def test_with_a_temperature_the_official_code_keeps_the_end_tokens_confidence(
    proposer: str, quirk: str, suppressed: bool
) -> None:
    """Whatever was drawn, also where every draw is the most likely token."""
    rule = built(
        "sampler=low_confidence",
        f"sampler/proposer={proposer}",
        "sampler.confidence_eos_eot_inf=true",
        f"sampler.official_quirk={quirk}",
    )
    canvas = canvas_of([MASK] * 2)
    positions = torch.tensor([[3, 4]])
    logits = torch.stack([distribution(EOS, 0.9), distribution(7, 0.6)])[None]
    view = View(canvas, positions, logits, torch.ones_like(positions).bool())
    score = rule.score(view, view.top[1])
    assert (score[0, 0] == 0) == suppressed
