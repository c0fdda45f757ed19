"""A study of Optuna's in a database: killed at any moment, the same command goes on with it.

The sweeper is Hydra's plug-in. What it leaves out is here: draws that a kill does not change, the
trials that are still to do, a budget, and a refusal of a study that was made with other settings.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

import optuna  # pyright: ignore[reportMissingImports]
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.distributions import BaseDistribution  # pyright: ignore[reportMissingImports]
from optuna.samplers import BaseSampler, TPESampler  # pyright: ignore[reportMissingImports]
from optuna.study import Study  # pyright: ignore[reportMissingImports]
from optuna.trial import FrozenTrial, TrialState  # pyright: ignore[reportMissingImports]

from dllm.config import WITHOUT_EFFECT
from dllm.errors import ConfigError


class Tpe(BaseSampler):
    """Optuna's TPE. A trial is drawn from the seed, the finished trials and their number: a trial
    that a kill cut off is drawn again, and what follows is what would have followed."""

    def __init__(self, seed: int, n_startup_trials: int, **others: Any) -> None:
        self._seed, self._given = seed, {"n_startup_trials": n_startup_trials, **others}
        self._next: int | None = None
        """Number of the next draw; several that run at once differ in it."""
        self._drawn = self._started(0)

    def _started(self, number: int) -> BaseSampler:
        return TPESampler(seed=self._seed + number, **self._given)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self._next is None:
            self._next = len(_finished(study))
        self._drawn = self._started(self._next)
        self._next += 1
        return self._drawn.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._drawn.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._drawn.sample_independent(study, trial, param_name, param_distribution)


def _finished(study: Study) -> list[FrozenTrial]:
    """Trials that came to an end, a refusal too; one that was killed did not."""
    over = (TrialState.COMPLETE, TrialState.FAIL)
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state in over]


def go_on(config: DictConfig, swept: Sequence[str]) -> bool:
    """Leaves the sweeper the trials that are still to do; whether some are done already.

    config: of the sweep, changed in place
    swept: overrides with a range

    Raises `ConfigError` for a database that can't be used and for a study of other settings.
    """
    study, settings = _study(config), _settings(config, swept)
    made = study.user_attrs.get("settings", {})
    for name in sorted(made.keys() | settings.keys()) if made else ():
        if made.get(name) != settings.get(name):
            raise ConfigError(
                f"{config.hydra.sweeper.storage} holds a study with {name}={made.get(name)}, this "
                f"one has {settings.get(name)}: choose another folder, hydra.sweep.dir=..."
            )
    study.set_user_attr("settings", settings)
    done = len(_finished(study))
    with read_write(config), open_dict(config):
        config.hydra.sweeper.n_trials = max(0, config.hydra.sweeper.n_trials - done)
    return bool(made)


def best(config: DictConfig) -> str:
    """The study's outcome in a line."""
    study = _study(config)
    values = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    done = len(_finished(study))
    if not values:
        return f"study: none of {done} trials has a value"
    trial = study.best_trial
    options = " ".join(f"{name}={value}" for name, value in trial.params.items())
    assert trial.value is not None
    if config.nfe_budget is not None and trial.value < 0:
        return f"study: none of {done} trials keeps nfe_budget={config.nfe_budget:g}: {options}"
    return f"study: best of {done} trials: {config.objective}={trial.value:.4g} {options}"


def _study(config: DictConfig) -> Study:
    sweeper = config.hydra.sweeper
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        return optuna.create_study(
            storage=sweeper.storage,
            study_name=sweeper.study_name,
            direction=str(getattr(sweeper.direction, "name", sweeper.direction)),
            load_if_exists=True,
        )
    except Exception as error:  # whatever the database's driver raises
        line = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"hydra.sweeper.storage={sweeper.storage}: {line}") from None


def _settings(config: DictConfig, swept: Sequence[str]) -> dict[str, str]:
    """All that decides the values of a study's trials and how they are drawn, by name."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    told = {name: value for name, value in plain.items() if name not in WITHOUT_EFFECT}
    sweeper = plain["hydra"]["sweeper"]
    told |= {name: plain[name] for name in ("objective", "nfe_budget")}
    told |= {name: sweeper[name] for name in ("direction", "sampler", "params")}
    told["swept"] = sorted(swept)
    return dict(sorted(_flat(told, "")))


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        below = [_flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()]
        return [pair for pairs in below for pair in pairs]
    return [(name, json.dumps(value, default=str).strip('"'))]
