"""Weights & Biases, offline by default.

What the user's environment says (`WANDB_MODE`, `WANDB_PROJECT`, `WANDB_DIR`, ...) holds where the
option is null; an option that is given wins.

Offline runs cannot be resumed by wandb itself, so that a resumed run logs everything again from
the run folder under the same id: `wandb sync` of all parts gives one complete run.

wandb takes more than a second to be imported and to start its service: it starts beside what is
decoded, and the first thing that is logged waits for it.
"""

import netrc
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dllm.errors import ConfigError, RunError
from dllm.tracking.tracker import RunInfo


_PROJECT = "dllm-decode"
_FORBIDDEN = "/\\#?%:"
_LONGEST_TAG = 64


@dataclass
class WandbTracker:
    project: str | None
    """null = WANDB_PROJECT, else dllm-decode."""
    entity: str | None
    """null = WANDB_ENTITY, else the account's default."""
    mode: Literal["offline", "online", "disabled"] | None
    """null = WANDB_MODE, else offline."""
    tags: list[str]
    _run: Any = field(default=None, init=False, repr=False)
    _starting: Future | None = field(default=None, init=False, repr=False)
    _lost: bool = field(default=False, init=False, repr=False)
    _axes: set[str] = field(default_factory=set, init=False, repr=False)

    @property
    def destination(self) -> Mapping[str, str | None] | None:
        """None once tracking was given up."""
        return None if self._lost else self._wanted

    @property
    def _wanted(self) -> Mapping[str, str | None]:
        return {
            "mode": self._mode,
            "project": self.project or os.environ.get("WANDB_PROJECT", _PROJECT),
            "entity": self.entity or os.environ.get("WANDB_ENTITY"),
        }

    @property
    def _mode(self) -> str:
        """WANDB_DISABLED is what trainers of other libraries ask."""
        off = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")
        return self.mode or os.environ.get("WANDB_MODE", "disabled" if off else "offline")

    def check(self) -> None:
        _find_home()
        _check_environment()
        project = self._wanted["project"] or ""
        if set(project) & set(_FORBIDDEN) or len(project) > 128:
            raise ConfigError(
                f"tracker.project={project}: wandb takes up to 128 characters without {_FORBIDDEN}"
            )
        for tag in (*self.tags, *_own_tags()):
            if not 1 <= len(tag) <= _LONGEST_TAG:
                raise ConfigError(
                    f"tracker.tags: {tag!r} has {len(tag)} characters; wandb takes 1 to "
                    f"{_LONGEST_TAG}"
                )
        if self._mode == "online" and not has_key():
            raise ConfigError(
                "tracker.mode=online needs a key: set WANDB_API_KEY or call `wandb login`; "
                "tracker.mode=offline needs none, `wandb sync` sends it later"
            )

    def start(self, run: RunInfo) -> None:
        """Returns at once; what wandb refuses is raised by the first call that logs something."""
        self.check()
        if "WANDB_RUN_ID" in os.environ:
            # Parts of a resumed run belong together by their id, cells of a sweep do not.
            print("note: WANDB_RUN_ID is ignored: a run's id is its fingerprint", file=sys.stderr)
        worker = ThreadPoolExecutor(1)
        self._starting = worker.submit(self._begin, run)
        worker.shutdown(wait=False)

    def _begin(self, run: RunInfo) -> Any:
        import wandb  # only a run that is tracked pays for the import
        from wandb.errors import Error

        quiet = {"silent": True, "console": "off"}
        beside = run.job in ("baseline", "control")  # the user's name is not meant for these
        try:
            return wandb.init(
                project=self.project or _unless_in("WANDB_PROJECT", _PROJECT),
                entity=self.entity,
                mode=self._mode,  # type: ignore[arg-type]
                dir=os.environ.get("WANDB_DIR", str(run.folder)),
                id=run.fingerprint,
                name=run.label if beside else _unless_in("WANDB_NAME", run.label),
                group=_unless_in("WANDB_RUN_GROUP", run.group),
                job_type=_unless_in("WANDB_JOB_TYPE", run.job),
                tags=[*self.tags, *(tag[:_LONGEST_TAG] for tag in run.tags), *_own_tags()],
                config=dict(run.config),
                settings=wandb.Settings(
                    **{k: v for k, v in quiet.items() if f"WANDB_{k.upper()}" not in os.environ}
                ),
            )
        except Error as error:
            reason = " ".join(str(error).split())
            raise RunError(f"tracker.mode={self._mode}: wandb can't start: {reason}") from None

    def _wait(self) -> None:
        """Until the run has started, which may have failed."""
        if self._starting is not None:
            starting, self._starting = self._starting, None
            self._run = starting.result()

    @contextmanager
    def _given_up(self) -> Iterator[Any]:
        """The run, None once it was given up: what decodes goes on without its tracker."""
        self._wait()
        try:
            yield self._run
        except Exception as error:  # a service that has died shows as many an error
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"note: tracking is given up: {reason}; the run goes on", file=sys.stderr)
            self._run, self._lost = None, True

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        with self._given_up() as run:
            if run is None:
                return
            if axis not in self._axes:
                self._axes.add(axis)
                run.define_metric(axis)
                run.define_metric(f"{axis}/*", step_metric=axis)
            run.log({axis: step, **{f"{axis}/{name}": value for name, value in values.items()}})

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        columns: list[Any] = list(rows[0]) if rows else []
        data: list[Any] = [[row[column] for column in columns] for row in rows]
        with self._given_up() as run:
            if run is not None:
                run.log({name: wandb.Table(columns=columns, data=data)})

    def summary(self, values: Mapping[str, Any]) -> None:
        with self._given_up() as run:
            if run is not None:
                run.summary.update(dict(values))

    def attach(self, name: str, files: Sequence[Path]) -> None:
        with self._given_up() as run:
            if run is not None:
                self._attach(run, name, files)

    def _attach(self, run: Any, name: str, files: Sequence[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(name, type="run")
        for file in files:
            # Read where it lies, also when an offline run is sent later: no second copy.
            artifact.add_file(str(file.resolve()), file.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact)
        shown: dict[str, Any] = {}
        for file in files:
            if file.suffix == ".png":
                shown[file.stem] = wandb.Image(str(file))
            elif file.suffix == ".html":
                shown[file.stem] = wandb.Html(file.read_text(), inject=False)
        if shown:
            run.log(shown)

    def finish(self) -> None:
        ended = sys.exception() is not None  # a run that ends for another reason tells that one
        try:
            self._wait()
        except RunError:
            if not ended:
                raise
        with self._given_up() as run:
            if run is not None:
                run.finish()
                self._run = None


def _own_tags() -> list[str]:
    """Of the user's environment."""
    return [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]


def _unless_in(variable: str, value: str | None) -> str | None:
    """The value, or None where the environment has one that wandb reads by itself."""
    return None if variable in os.environ else value


def _find_home() -> None:
    """Of a `~` in a folder of the user's environment wandb would make a folder."""
    for name, value in os.environ.items():
        if re.fullmatch(r"WANDB_(\w+_)?DIR", name):
            os.environ[name] = str(Path(value).expanduser())


def _check_environment() -> None:
    """Raises `ConfigError` for a value of the user's environment that wandb does not take."""
    if not any(name.startswith("WANDB_") for name in os.environ):
        return  # no import for it
    import wandb
    from pydantic import ValidationError  # wandb's own
    from wandb.errors import UsageError

    try:
        wandb.Settings().update_from_env_vars(dict(os.environ))
        if "WANDB_SERVICE" in os.environ:
            from wandb.sdk.lib.service import service_token

            service_token.from_env()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"WANDB_{first['loc'][0]}".upper()
        name = name if name in os.environ else name.replace("_RUN_", "_")  # WANDB_TAGS
        raise ConfigError(f"{name}={os.environ.get(name)}: {first['msg']}") from None
    except (UsageError, ValueError) as error:
        raise ConfigError(f"a WANDB_... variable of the environment: {error}") from None


def has_key() -> bool:
    """Whether wandb would find a key, or something in its place, without asking."""
    import wandb

    settings = wandb.setup().settings
    if settings.api_key or settings.identity_token_file:
        return True
    hosts = (urlsplit(settings.base_url).netloc, "api.wandb.ai")
    try:
        logins = netrc.netrc(os.environ.get("NETRC") or Path("~/.netrc").expanduser())
    except (OSError, netrc.NetrcParseError):
        return False
    return any(logins.authenticators(host) for host in hosts)
