"""Window-Diffusion's choice of candidates: phases, first masks, early stop."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from scripted import built, distribution
from tiny_decoding import EOS, SPEC, canvas_of, random_model

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Canvas, Prompt
from dllm.step.decision import Decision
from dllm.step.prediction import View
from dllm.step.state import SamplerState
from samplers.window_diffusion import Window


def rule(*options: str) -> Window:
    found = built("sampler=window", "sampler.refresh_cycle=4", *options)
    assert isinstance(found, Window)
    return found


class Walk:
    """One sequence behind a prompt of three; every mask predicts (token, probability)."""

    def __init__(self, sampler: Window, masks: int):
        self.sampler = sampler
        self.canvas: Canvas = canvas_of([0] * masks, prompt=(5, 6, 7))
        self.canvas.enter_block(0, 3, 3 + masks)
        self.state = SamplerState(sampler.fields(), self.canvas.capacity, "cpu")
        self.state.append()

    def wanted(self) -> list[int]:
        eligible = self.sampler.region.eligible(self.canvas)
        self.positions = self.sampler.plan(self.canvas, eligible, self.state).positions
        return self.positions[0].tolist()

    def decide(self, scene: dict[int, tuple[int, float]], step: bool = True) -> Decision:
        self.wanted()
        logits = torch.stack([distribution(*scene.get(p, (9, 0.1))) for p in self.positions[0]])
        positions = torch.from_numpy(self.positions)
        view = View(self.canvas, positions, logits[None], positions >= 0)
        self.sampler.observe(view, self.state)
        decision = self.sampler.select(view, self.state)
        chosen = decision.commit[0].numpy()
        self.canvas.tokens[0, self.positions[0][chosen]] = decision.tokens[0].numpy()[chosen]
        self.canvas.step += step
        self.canvas.step_in_block += step
        return decision


def committed(walk: Walk, scene: dict[int, tuple[int, float]]) -> list[int]:
    positions = walk.decide(scene).commit[0].nonzero().flatten()
    return [int(walk.positions[0][i]) for i in positions]


def test_a_refresh_takes_any_mask_and_a_step_the_first_ones() -> None:
    walk = Walk(rule("sampler.active=3"), 12)
    assert walk.wanted() == list(range(3, 15))
    assert committed(walk, {13: (9, 0.9)}) == [13]
    assert walk.wanted() == [3, 4, 5]
    # 8.6: the surest active mask; 13 is decided already.
    assert committed(walk, {3: (9, 0.41), 4: (9, 0.88), 5: (9, 0.87)}) == [4]
    assert walk.wanted() == [3, 5, 6]


def test_a_dream_refresh_commits_the_first_mask_whatever_it_is() -> None:
    walk = Walk(rule("sampler.active=3", "sampler.refresh_candidates=first_mask"), 12)
    assert committed(walk, {3: (9, 0.1), 4: (9, 0.99)}) == [3]
    assert walk.wanted() == [4, 5, 6]


@pytest.mark.parametrize(("slide", "expected"), [("true", [3, 5, 6]), ("false", [3, 5])])
def test_slide(slide: str, expected: list[int]) -> None:
    walk = Walk(rule("sampler.active=3", f"sampler.slide={slide}"), 12)
    committed(walk, {14: (9, 0.9)})
    committed(walk, {4: (9, 0.9)})
    assert walk.wanted() == expected


def test_early_stop_cuts_behind_the_first_end_token() -> None:
    """8.6: an end token at index 6 while 3 and 4 are masked: length 7, then refreshes in order."""
    options = ("sampler.refresh_candidates=first_mask", "sampler.early_stop=true")
    walk = Walk(rule("sampler.active=8", *options), 12)
    walk.decide({})
    walk.decide({4: (9, 0.9)})
    decision = walk.decide({9: (EOS, 0.9)})
    assert decision.length is not None and int(decision.length[0]) == 10
    walk.canvas.truncate(0, 10)
    assert walk.wanted() == [5]
    walk.decide({})
    assert walk.wanted() == [6]


def test_a_refresh_does_not_look_for_the_end() -> None:
    walk = Walk(rule("sampler.active=8", "sampler.early_stop=true"), 12)
    decision = walk.decide({9: (EOS, 0.9)})
    assert decision.length is not None and int(decision.length[0]) == walk.canvas.length[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("sampler.active=0",), "sampler.active=0 must be >= 1"),
        (("sampler.refresh_cycle=0",), "sampler.refresh_cycle=0 must be >= 1"),
    ],
)
def test_options(options: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(*options)


def test_a_quota_needs_as_many_candidates() -> None:
    with pytest.raises(ConfigError, match="less than the 4 tokens per step"):
        rule("sampler.active=3", "sampler.base.steps=4").validate(16)


def test_phases_follow_the_cache() -> None:
    config = compose(["sampler=window", "cache=window", "cache.refresh_cycle=7"])
    assert build(config.sampler, "sampler").refresh_cycle == 7
    assert compose(["sampler=window"]).sampler.refresh_cycle == 32


@pytest.mark.parametrize("variant", ["window", "window_dream"])
def test_batches(variant: str) -> None:
    """Sequences of different lengths in different phases decode as they would alone."""
    config = compose([f"sampler={variant}", f"cache={variant}", "sampler.active=3"])
    config.cache.outer_window, config.cache.refresh_cycle = 8, 3
    spec = replace(SPEC, logit_shift=1 if variant == "window_dream" else 0)
    prompts = [Prompt(f"s{n}", tuple(range(2, 4 + n)), 6 + 2 * n) for n in range(5)]

    def tokens(batch_size: int) -> dict[str, tuple[int, ...]]:
        rule, policy = build(config.sampler, "sampler"), build(config.cache, "cache")
        decoder = Decoder(Predictor(random_model(spec)), rule, policy, batch_size=batch_size)
        return {outcome.sample_id: outcome.tokens for outcome in decoder.decode(prompts)}

    assert tokens(3) == tokens(1)
