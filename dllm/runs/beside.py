"""What is decoded beside a run to compare it with: its baseline, and a sampler's control."""

from omegaconf import DictConfig

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.sampler import Sampler


BASELINE = "low_confidence"
"""Sampler of the baseline."""


def baseline_of(config: DictConfig, spec: ModelSpec) -> DictConfig:
    """The same run with one token per step, most confident first, and no cache: same checkpoint,
    samples, canvas, blocks and end of the answer, so that the ratio is the method's alone.

    Raises `ConfigError` for a model that can't decode so.
    """
    if spec.noise != "mask":
        raise ConfigError(
            f"baseline=true: one token per step needs a mask token, which model="
            f"{config.model.name} lacks; use baseline=false"
        )
    base = config.copy()
    default = configuration.compose([f"sampler={BASELINE}", "cache=none", "constraint=none"])
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
    """Blocks of the run's length: those that it has where its own end elsewhere (adaptive blocks
    without a delimiter), one block where it has none (a window, an inferred length). A
    block-causal model's blocks lie where it was trained to have them, whatever the run does."""

    def region(name: str) -> DictConfig:
        options = [f"sampler={BASELINE}", f"sampler/region={name}"]
        return configuration.compose(options).sampler.region

    ours = _innermost(config.sampler).region
    aligned = region("aligned")
    if ours._target_ == aligned._target_:
        return ours
    if spec.attention == "block_causal":
        return aligned
    length = ours.get("block_length", ours.get("default_block_length"))
    even = length is None or config.gen_length % length == 0
    blocks = region("fixed" if even else "uneven")
    blocks.block_length = length
    return blocks


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
