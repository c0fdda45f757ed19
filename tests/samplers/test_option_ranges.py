"""The ranges of options: a bound is allowed, what is beyond it is refused by name."""

import math
from copy import deepcopy
from functools import cache

import pytest
from omegaconf import DictConfig
from ranges import POSITIVE, TINY, UNIT, Range, at_least, check_range
from scripted import built

from dllm.config import compose
from dllm.errors import ConfigError


SHARE = Range((math.nextafter(0, 1), 1.0), (0.0, math.nextafter(1, 2)), "is outside (0, 1]")
OPEN = Range(
    (math.nextafter(0, 1), math.nextafter(1, 0)),
    (0.0, 1.0),
    "is outside (0, 1)",
)
DYSTRUCT = "dystruct sampler.delimiter_ids=[4]"
TEMPERED = Range(POSITIVE.allowed, (0.0,), "must be > 0 (greedy: sampler/proposer=greedy)")
NUCLEUS = "threshold sampler/logits_transform=nucleus"
FILTER = "learn2pd sampler.filter=tiny-llada"
RANGES = {
    ("threshold", "threshold"): UNIT,
    ("wino", "threshold"): UNIT,
    ("wino", "threshold_back"): UNIT,
    ("certainty_prior", "threshold"): UNIT,
    ("certainty_prior", "least"): at_least(1, 0),
    ("low_confidence", "cfg_scale"): at_least(0, TINY),
    ("wedlm", "position_penalty"): at_least(0, TINY),
    ("dinfer_threshold", "threshold"): UNIT,
    ("dinfer_hierarchy", "threshold"): UNIT,
    ("dinfer_hierarchy", "low_threshold"): UNIT,
    ("hierarchy_remask", "remask_threshold"): UNIT,
    ("ete", "branches"): at_least(1, 0),
    ("ete", "min_exploit"): at_least(1, 0),
    ("ete", "likelihood_weight"): at_least(0, TINY),
    ("ete", "ahead"): at_least(0, -1),
    ("ete", "candidate_top_p"): UNIT,
    ("ete", "candidate_ratio"): UNIT,
    ("localleap sampler.threshold=1.0", "relaxed_threshold"): UNIT,
    ("localleap sampler.relaxed_threshold=0.0", "threshold"): UNIT,
    ("localleap", "radius"): at_least(0, -1),
    ("llada2_edit", "edit_threshold"): UNIT,
    ("llada2_edit", "max_passes"): at_least(0, -1),
    ("window sampler.base.steps=null", "active"): at_least(1, 0),
    ("window", "refresh_cycle"): at_least(1, 0),
    ("fastdllm_dream", "threshold"): UNIT,
    ("fastdllm_dream", "steps"): at_least(1, 0),
    ("daedal", "low_threshold"): UNIT,
    ("daedal", "eos_threshold"): UNIT,
    ("daedal", "expansion_threshold"): UNIT,
    ("daedal", "high_threshold"): UNIT,
    ("daedal", "expansion"): at_least(1, 0),
    ("daedal", "eos_window"): at_least(2, 1),
    ("eb_sampler", "gamma"): at_least(0, TINY),
    ("klass", "threshold"): UNIT,
    ("d3llm", "threshold"): at_least(0, TINY),
    ("d3llm", "add_threshold"): UNIT,
    ("diffusion_gemma", "max_denoising_steps"): at_least(1, 0),
    ("diffusion_gemma", "entropy_bound"): POSITIVE,
    ("diffusion_gemma", "confidence_threshold"): POSITIVE,
    ("diffusion_gemma", "stability_threshold"): at_least(0, -1),
    ("diffusion_gemma", "t_min"): at_least(0, TINY),
    ("klass", "kl_threshold"): at_least(0, TINY),
    ("klass", "history"): at_least(1, 0),
    (DYSTRUCT, "weld_radius"): at_least(0, -1),
    (DYSTRUCT, "weld_steps"): at_least(1, 0),
    (DYSTRUCT, "max_forwards"): at_least(1, 0),
    (DYSTRUCT, "structure.min_block"): at_least(1, 0),
    (f"{DYSTRUCT} sampler.structure.min_block=4", "structure.max_block"): at_least(4, 3),
    (DYSTRUCT, "structure.concentration"): Range((1e-9,), (0.0,), "must be > 0"),
    (DYSTRUCT, "structure.block_spread"): POSITIVE,
    (DYSTRUCT, "structure.floor_spread"): POSITIVE,
    (DYSTRUCT, "structure.boundary_prior"): OPEN,
    (DYSTRUCT, "structure.clip"): Range(
        (math.nextafter(0, 1), math.nextafter(0.5, 0)),
        (0.0, 0.5),
        "is outside (0, 0.5)",
    ),
    (DYSTRUCT, "schedule.instability_weight"): at_least(0, TINY),
    (DYSTRUCT, "schedule.anchor_weight"): at_least(0, TINY),
    (DYSTRUCT, "schedule.temperature"): at_least(0, TINY),
    (DYSTRUCT, "schedule.anchor_reach"): at_least(1e-9, 0.0),
    (DYSTRUCT, "schedule.steps_per_token"): at_least(1e-9, 0.0),
    (DYSTRUCT, "schedule.step_floor"): at_least(1e-9, 0.0),
    ("ar", "threshold"): UNIT,
    ("pc_sampler", "position_decay"): at_least(0, TINY),
    ("pc_sampler", "clip"): at_least(0, TINY),
    ("deer", "draft_length"): at_least(1, 0),
    ("bacd sampler.confidence_upper=1.0", "confidence_lower"): UNIT,
    ("bacd sampler.confidence_lower=0.0", "confidence_upper"): UNIT,
    ("credit", "logits_transform.fusion"): at_least(0, TINY),
    ("credit", "logits_transform.exponent"): at_least(0, TINY),
    ("credit", "logits_transform.decay"): UNIT,
    ("sdar", "threshold"): UNIT,
    ("sdar", "entropy_bound"): at_least(0, TINY),
    ("sdar sampler.denoising_steps=null", "per_step"): at_least(1, 0),
    ("r2dllm", "spatial_threshold"): UNIT,
    ("r2dllm", "temporal_threshold"): UNIT,
    ("r2dllm", "cluster_size"): at_least(1, 0),
    ("r2dllm", "cluster_unmasked"): at_least(0, -1),
    ("r2dllm", "run_length"): at_least(2, 1),
    ("r2dllm", "temporal_steps"): at_least(1, 0),
    (FILTER, "accept_threshold"): UNIT,
    ("freedave", "draft_steps"): at_least(1, 0),
    ("freedave", "verify.max_batch"): at_least(1, 0),
    ("threshold", "region.block_length"): at_least(1, 0),
    ("sdar", "region.block_length"): at_least(1, 0),
    ("wedlm", "region.window"): at_least(1, 0),
    ("daedal", "region.block_length"): at_least(1, 0),
    ("daedal", "region.initial_length"): at_least(1, 0),
    ("adablock", "region.default_block_length"): at_least(1, 0),
    ("adablock", "region.delimiter_threshold"): UNIT,
    ("dinfer_threshold", "expected_tpf"): at_least(1, 0),
    ("dinfer_threshold", "maximum_unroll"): at_least(1, 0),
    ("adablock", "region.window_fraction"): SHARE,
    ("certainty_prior", "sigma"): POSITIVE,
    ("factor", "factor"): POSITIVE,
    ("dream_entropy", "steps"): at_least(1, 0),
    ("dream_entropy", "eps"): Range((0.0, math.nextafter(1, 0)), (TINY, 1.0), "is outside [0, 1)"),
    ("dream_entropy", "alg_temp"): at_least(0, TINY),
    ("threshold sampler/proposer=gumbel", "proposer.temperature"): TEMPERED,
    ("wedlm sampler/proposer=filtered", "proposer.temperature"): TEMPERED,
    ("wedlm sampler/proposer=filtered", "proposer.top_k"): at_least(1, 0),
    ("wedlm sampler/proposer=filtered", "proposer.top_p"): SHARE,
    (NUCLEUS, "logits_transform.temperature"): at_least(0, TINY),
    (NUCLEUS, "logits_transform.top_p"): SHARE,
    (NUCLEUS, "logits_transform.top_k"): at_least(1, 0),
}


@pytest.mark.parametrize(
    ("bounds", "fits"),
    [((1, 1, 1), True), ((0, 1, 1), False), ((2, 1, 1), False), ((1, 1, 0), False)],
)
def test_windows_of_dystruct(bounds: tuple[int, int, int], fits: bool) -> None:
    names = ("smallest_window", "largest_window", "first_window")
    given = [f"sampler.region.{name}={value}" for name, value in zip(names, bounds, strict=True)]
    if fits:
        built(*f"sampler={DYSTRUCT}".split(), *given)
        return
    with pytest.raises(ConfigError) as error:
        built(*f"sampler={DYSTRUCT}".split(), *given)
    smallest, largest, first = bounds
    assert str(error.value) == (
        f"sampler.region.smallest_window={smallest}, largest_window={largest}, "
        f"first_window={first} are not 1 <= smallest <= largest, first >= 1"
    )


@cache
def _composed(rule: str) -> DictConfig:
    return compose(f"sampler={rule}".split())


def composed(rule: str) -> DictConfig:
    """A configuration to be changed."""
    return deepcopy(_composed(rule))


@pytest.mark.parametrize(("rule", "option"), RANGES)
def test_range(rule: str, option: str) -> None:
    check_range(composed(rule), "sampler", option, RANGES[rule, option])
