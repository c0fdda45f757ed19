"""What is decoded beside a run to compare it with: its baseline, and a sampler's control."""

from functools import cache

from hydra.utils import get_class
from omegaconf import DictConfig

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.sampler import Sampler


def baseline_name(spec: ModelSpec) -> str:
    """Sampler of the model's baseline: the most confident position first, or what comes next where
    the model predicts nothing else."""
    return "left_to_right" if spec.autoregressive else "low_confidence"


def baseline_of(config: DictConfig, spec: ModelSpec) -> DictConfig:
    """The same run with one token per step and no cache: same checkpoint, samples, canvas, blocks
    and end of the answer, so that the ratio is the method's alone.

    Raises `ConfigError` for a model that can't decode so.
    """
    if spec.noise != "mask":
        raise ConfigError(
            f"baseline=true: one token per step needs a mask token, which model="
            f"{config.model.name} lacks; use baseline=false"
        )
    base = config.copy()
    default = configuration.compose(
        [f"sampler={baseline_name(spec)}", "cache=none", "constraint=none"]
    )
    for name in ("sampler", "cache", "constraint"):
        base[name] = default[name]
    base.overwrite = False
    base.sampler.region = _baseline_region(config, spec)
    return base


def shared(option: str) -> bool:
    """Whether what lies beside a run has the run's value of an option."""
    path = option.split("@")[-1].replace("/", ".")
    return not path.startswith(("sampler", "cache", "constraint")) or path.startswith(
        "sampler.region"
    )


def _baseline_region(config: DictConfig, spec: ModelSpec) -> DictConfig:
    """The run's own blocks, so that canvas and end of the answer are the same for both.

    A rule that decides the answer's length by itself alone can use a region without blocks of a
    given place (a window, a canvas that grows): its baseline has blocks of the same length, one
    block where there is none, those of a block-causal model where it was trained to have them.
    """
    rule = _innermost(config.sampler)
    if not get_class(rule._target_).decides_length or rule.region._target_ in _placed():
        return rule.region
    if spec.attention == "block_causal":
        return _region("aligned")
    length = rule.region.get("block_length")
    even = length is None or config.gen_length % length == 0
    blocks = _region("fixed" if even else "uneven")
    blocks.block_length = length
    return blocks


@cache
def _placed() -> frozenset[str]:
    """Classes of blocks that lie where they lie whatever is decoded."""
    return frozenset(_region(name)._target_ for name in ("aligned", "fixed", "uneven"))


def _region(name: str) -> DictConfig:
    options = ["sampler=low_confidence", f"sampler/region={name}"]
    return configuration.compose(options).sampler.region


def control_of(config: DictConfig, name: str, sampler: Sampler) -> tuple[DictConfig, str] | None:
    """The same run with the simpler rule that the sampler is to be compared with, and that run's
    name; None if it asks for none. Samplers around the rule stay."""
    wanted = sampler.control()
    if wanted is None:
        return None
    choice, options = wanted
    rule = configuration.compose([f"sampler={choice}"]).sampler
    rule.region = _innermost(config.sampler).region
    for option, value in options.items():
        rule[option] = value
    control = config.copy()
    if "base" not in control.sampler:
        control.sampler = rule
        return control, choice
    around = control.sampler
    while "base" in around.base:
        around = around.base
    around.base = rule
    return control, name


def _innermost(sampler: DictConfig) -> DictConfig:
    """The sampler inside all that wrap another one."""
    return _innermost(sampler.base) if "base" in sampler else sampler
