"""The objects that a run's configuration describes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig

from dllm import config as configuration
from dllm.cache.policy import CachePolicy
from dllm.errors import ConfigError
from dllm.metrics.definitions import Summary
from dllm.models.hub import ModelOptions
from dllm.step.constraint import Constraint
from dllm.step.eos import EosPolicy
from dllm.step.sampler import Sampler
from dllm.tasks.base import Task
from dllm.tracking.tracker import Tracker


OBJECTIVES = tuple(
    field.name for field in fields(Summary) if field.type in (int, float, float | None)
)
"""Numbers of a summary that a sweeper can ask for."""


@dataclass(frozen=True)
class Parts:
    """Everything a configuration builds, checked before any work is done."""

    model: ModelOptions
    sampler: Sampler
    cache: CachePolicy
    constraint: Constraint | None
    task: Task
    tracker: Tracker
    eos: EosPolicy


def build_parts(config: DictConfig) -> Parts:
    """Raises `ConfigError` for any option that is unknown, wrongly typed or out of range."""

    def part(name: str, kind: Any) -> Any:
        return configuration.build(config[name], name, config.allow_external, kind)

    configuration.check_options(config)
    if config.eos not in list(EosPolicy):
        raise ConfigError(f"eos={config.eos} is not one of {', '.join(EosPolicy)}")
    if config.objective not in OBJECTIVES:
        raise ConfigError(f"objective={config.objective} is not one of {', '.join(OBJECTIVES)}")
    if config.nfe_budget is not None and config.objective != "accuracy":
        raise ConfigError(
            f"nfe_budget={config.nfe_budget:g} bounds objective=accuracy, not {config.objective}"
        )
    if config.alternatives is not None and not config.trace:
        raise ConfigError(f"alternatives={config.alternatives} are kept in traces: use trace=true")
    return Parts(
        part("model", ModelOptions),
        part("sampler", Sampler),
        part("cache", CachePolicy),
        part("constraint", Constraint),
        part("task", Task),
        part("tracker", Tracker),
        EosPolicy(config.eos),
    )


def objective(config: DictConfig, metrics: Mapping[str, Any]) -> float | None:
    """The number that a sweeper is given, None where the summary has none. A run within its budget
    is better than any beyond it, of those the one that exceeds it less (Deb's rule for constraints,
    DOI 10.1016/S0045-7825(99)00389-8)."""
    if config.nfe_budget is not None and metrics["nfe"] > config.nfe_budget:
        return 1 - metrics["nfe"] / config.nfe_budget
    return metrics[config.objective]
