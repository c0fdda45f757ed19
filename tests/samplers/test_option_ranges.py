"""The ranges of options: a bound is allowed, what is beyond it is refused by name."""

import math

import pytest
from scripted import built

from dllm.errors import ConfigError


UNIT = ((0.0, 1.0), (math.nextafter(0, -1), math.nextafter(1, 2)), "is outside [0, 1]")


def at_least(bound: float, below: float) -> tuple[tuple[float], tuple[float], str]:
    return (bound,), (below,), f"must be >= {bound}"


TINY = math.nextafter(0, -1)
DYSTRUCT = "dystruct sampler.delimiter_ids=[4]"
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
    ("klass", "kl_threshold"): at_least(0, TINY),
    ("klass", "history"): at_least(1, 0),
    (DYSTRUCT, "weld_radius"): at_least(0, -1),
    (DYSTRUCT, "weld_steps"): at_least(1, 0),
    (DYSTRUCT, "max_forwards"): at_least(1, 0),
    (DYSTRUCT, "structure.min_block"): at_least(1, 0),
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
    ("dream_entropy", "steps"): at_least(1, 0),
}


@pytest.mark.parametrize(("rule", "option"), RANGES)
def test_range(rule: str, option: str) -> None:
    allowed, refused, phrase = RANGES[rule, option]
    choices = f"sampler={rule}".split()
    for value in allowed:
        built(*choices, f"sampler.{option}={value}")
    for value in refused:
        with pytest.raises(ConfigError) as error:
            built(*choices, f"sampler.{option}={value}")
        assert str(error.value) == f"sampler.{option}={value} {phrase}"
