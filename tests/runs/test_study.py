"""Studies of Optuna's: what a kill changes (nothing), what a budget is worth, what is refused."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import forked
from omegaconf import OmegaConf
from whole_runs import main

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.runs.folder import RunFolder
from dllm.runs.parts import build_parts, objective


optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra sweep")

# The import needs what was just looked for.
from dllm.runs import study as studies  # noqa: E402


Options = Callable[..., list[str]]


def drawn(storage: str, count: int, asked: int = 0) -> Iterator[dict[str, float]]:
    """Parameters of `count` more trials by one process, which is killed after it has asked for
    `asked` further ones."""
    study = optuna.create_study(
        storage=storage,
        study_name="study",
        direction="maximize",
        sampler=studies.Tpe(seed=3, n_startup_trials=3),
        load_if_exists=True,
    )

    def ask():
        trial = study.ask()
        trial.suggest_float("threshold", 0, 1)
        trial.suggest_categorical("block", [8, 16])
        return trial

    for _ in range(count):
        trial = ask()
        if trial.params["threshold"] > 0.9:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, -((trial.params["threshold"] - 0.4) ** 2))
        yield trial.params
    for _ in range(asked):
        ask()


def test_what_is_drawn_after_a_kill(tmp_path: Path) -> None:
    whole = list(drawn(f"sqlite:///{tmp_path}/whole.db", 12))
    storage = f"sqlite:///{tmp_path}/killed.db"
    parts = [list(drawn(storage, count, asked=1)) for count in (2, 3, 7)]
    assert [trial for part in parts for trial in part] == whole
    assert len({trial["threshold"] for trial in whole}) == 12


@pytest.mark.parametrize(
    ("nfe", "accuracy", "value"), [(8.0, 0.5, 0.5), (7.9, 0.0, 0.0), (10.0, 1.0, -0.25)]
)
def test_what_a_budget_makes_of_a_run(nfe: float, accuracy: float, value: float) -> None:
    config = compose(["nfe_budget=8"])
    assert objective(config, {"nfe": nfe, "accuracy": accuracy}) == value
    assert objective(compose(), {"nfe": nfe, "accuracy": accuracy}) == accuracy


def test_a_budget_of_another_objective() -> None:
    with pytest.raises(ConfigError, match="nfe_budget=8 bounds objective=accuracy, not nfe"):
        build_parts(compose(["nfe_budget=8", "objective=nfe"]))


def sweep(tmp_path: Path, *more: str) -> list[str]:
    folder = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    return ["-m", "experiment=tune/threshold", "task=listops", folder, "baseline=false", *more]


def settled(tmp_path: Path, trials: int = 3, **changes: str):
    sweeper = {
        "storage": f"sqlite:///{tmp_path}/study.db",
        "study_name": "study",
        "direction": "maximize",
        "sampler": {"seed": 0},
        "params": {"sampler.threshold": "interval(0, 1)"},
        "n_trials": trials,
    }
    given = {"hydra": {"sweeper": sweeper}, "limit": 4, "objective": "accuracy"}
    return OmegaConf.create({**given, "nfe_budget": None, "output": "a", **changes})


def test_the_trials_that_are_left(tmp_path: Path) -> None:
    config = settled(tmp_path)
    assert not studies.go_on(config, [])
    assert config.hydra.sweeper.n_trials == 3
    list(drawn(config.hydra.sweeper.storage, 2, asked=1))
    again = settled(tmp_path, output="b")  # what can't change a result may change
    assert studies.go_on(again, [])
    assert again.hydra.sweeper.n_trials == 1
    with pytest.raises(ConfigError, match="holds a study with limit=4, this one has 5: choose"):
        studies.go_on(settled(tmp_path, limit="5"), [])
    with pytest.raises(ConfigError, match=r"holds a study with swept=\[\], this one has"):
        studies.go_on(settled(tmp_path), ["sampler.radius=1,2"])


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    config = settled(tmp_path)
    for storage in ("sqlite:////nowhere/study.db", "no url"):
        config.hydra.sweeper.storage = storage
        with pytest.raises(ConfigError, match=f"hydra.sweeper.storage={storage}: ") as refused:
            studies.go_on(config, [])
        assert "\n" not in str(refused.value)


def values(tmp_path: Path) -> list[tuple[dict, float]]:
    study = optuna.load_study(
        study_name="study", storage=f"sqlite:///{tmp_path / 'sweep' / 'study.db'}"
    )
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    return [(trial.params, trial.value) for trial in done]


def test_a_study_that_is_killed(options: Options, tmp_path: Path) -> None:
    """In its second trial; the same command ends as an undisturbed one."""
    one, two = tmp_path / "one", tmp_path / "two"
    given = sweep(one, *options("hydra.sweeper.n_trials=4", f"output={one / 'runs'}"))
    code, said = forked(lambda: main(given), tmp_path / "said-one").ended()
    assert code == 0, said
    given = sweep(two, *options("hydra.sweeper.n_trials=4", f"output={two / 'runs'}"))

    def killed() -> None:
        append, count = RunFolder.append, 0

        def kept(folder: RunFolder, *sample: object) -> None:
            nonlocal count
            append(folder, *sample)  # type: ignore[arg-type]
            count += 1
            if count == 8:
                os.kill(os.getpid(), signal.SIGKILL)

        RunFolder.append = kept  # type: ignore[method-assign]
        main(given)

    assert forked(killed, tmp_path / "said-two").ended()[0] == -signal.SIGKILL
    assert len(values(two)) == 1
    code, again = forked(lambda: main(given), tmp_path / "said-again").ended()
    assert code == 0 and "2 of 6 samples reused" in again
    assert values(two) == values(one)
    assert said.count("run folder: ") == again.count("run folder: ") == 4
    assert said.count("study: best of 4 trials: ") == again.count("study: best of 4 trials: ") == 1
    ours = {path.parent.name for path in (two / "runs").glob("threshold/*/summary.json")}
    assert ours == {path.parent.name for path in (one / "runs").glob("threshold/*/summary.json")}
    assert len(ours) == 4


def test_a_study_in_which_all_is_refused(options: Options, tmp_path: Path) -> None:
    given = sweep(tmp_path, *options("hydra.sweeper.n_trials=2", "nfe_budget=8", "eos=never"))
    code, said = forked(lambda: main(given), tmp_path / "said").ended()
    lines = said.splitlines()
    assert code == 2 and "Traceback" not in said, said
    assert [line[:14] for line in lines if line.startswith("error: job")] == [
        "error: job 0: ",
        "error: job 1: ",
    ]
    assert "error: hydra/sweeper: no trial has a value" in lines
    assert "study: none of 2 trials has a value" in lines


@pytest.mark.slow
def test_a_study_killed_at_random(options: Options, tmp_path: Path) -> None:
    import random
    import time

    one, draw, kills = tmp_path / "one", random.Random(5), 0
    more = ("hydra.sweeper.n_trials=6", "limit=12")
    began = time.monotonic()
    given = sweep(one, *options(*more, f"output={one / 'runs'}"))
    assert forked(lambda: main(given), tmp_path / "said").ended()[0] == 0
    long, series = time.monotonic() - began, 0
    while kills < 20:
        series += 1
        two = tmp_path / str(series)
        given = sweep(two, *options(*more, f"output={two / 'runs'}"))
        while True:
            run = forked(lambda given=given: main(given), tmp_path / f"said-{series}")
            time.sleep(draw.uniform(0, long))
            run.kill()
            code, said = run.ended()
            assert code in (0, -signal.SIGKILL), said
            if code == 0:
                break
            kills += 1
        assert values(two) == values(one)
        folders = sorted((two / "runs").glob("threshold/*/summary.json"))
        for path in folders:
            other = one / "runs" / "threshold" / path.parent.name
            assert RunFolder(path.parent).finished() == RunFolder(other).finished()
        assert len(folders) == 6
    print(f"{kills} kills in {series} series")


def test_the_presets_compose_and_search(tmp_path: Path) -> None:
    root = Path(__file__).parents[2] / "conf" / "experiment" / "tune"
    for path in sorted(root.glob("*.yaml")):
        config = compose([f"experiment=tune/{path.stem}"])
        build_parts(config)
        searched = OmegaConf.load(path).hydra.sweeper.params
        assert all(OmegaConf.select(config, str(name)) is not None for name in searched)
