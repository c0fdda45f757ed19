"""From the command to the first decoded token: `python -m scripts.run sampler=localleap` in fresh
processes, with Weights & Biases and the baseline apart.

A process notes by itself when it has got how far, in seconds since its parent began to start it.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from dllm.bench.options import chosen
from dllm.bench.sheet import Line, Sheet
from dllm.errors import ConfigError, RunError


COMMAND = ("sampler=localleap",)
REPEATS = 5
VARIANTS: Mapping[str, Sequence[str]] = {
    "alone, s": ("tracker=none", "baseline=false"),
    "with W&B, s": ("tracker=wandb", "baseline=false"),
    "with both, s": ("tracker=wandb",),
}
PARTS = (
    "Python and Hydra imported",
    "configuration composed",
    "torch and the engine imported",
    "options checked, tokenizer read",
    "code, model and samples known",
    "baseline: model loaded",
    "baseline: first token",
    "baseline done",
    "model loaded",
    "first token",
    "W&B started",
    "command done",
)
"""In order; W&B starts beside what is decoded."""
_CHILD = "from dllm.bench.startup import timed; timed()"


def sheet(options: Sequence[str]) -> Sheet:
    if foreign := [
        key for key in chosen(options) if key in ("tracker", "baseline", "output", "hydra")
    ]:
        raise ConfigError(f"{foreign[0]}: startup measures with and without it; it can't be given")
    return Sheet(
        "Start-up",
        [
            f"python -m scripts.run {' '.join([*COMMAND, *options])} in a fresh process and a "
            "fresh folder: seconds from the command until each part is reached, medians. Alone: "
            "tracker=none baseline=false; then with W&B (offline, which is started beside the "
            "decoding), and as it stands, with one token per step decoded first. The span is that "
            "of the command alone."
        ],
        dict.fromkeys(VARIANTS, "{:.2f}"),
        "alone, s",
        _lines(options, REPEATS),
    )


def _lines(options: Sequence[str], repeats: int) -> Iterator[Line]:
    found = {name: [] for name in VARIANTS}
    run(("--help",))  # files are in the system's cache from here on
    for _ in range(repeats):
        for name, variant in VARIANTS.items():
            found[name].append(run((*COMMAND, *variant, *options)))
    for part in PARTS:
        times = {n: [m[part] for m in marks if part in m] for n, marks in found.items()}
        alone = times["alone, s"]
        values = {name: median(seconds) for name, seconds in times.items() if seconds}
        yield Line(part, values, (min(alone), max(alone)) if alone else None)


def run(options: Sequence[str]) -> dict[str, float]:
    """Seconds until each part that was reached. Raises `RunError` where the command fails."""
    with TemporaryDirectory() as folder:
        marks = Path(folder, "marks.json")
        command = [sys.executable, "-c", _CHILD, str(marks), str(time.perf_counter()), *options]
        done = subprocess.run([*command, f"output={folder}/runs"], capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"scripts.run {' '.join(options)}: {done.stderr.strip()}")
        return json.loads(marks.read_text())


def timed() -> None:
    """The process that is timed: where its marks go, when it was begun, the command's options."""
    path, begun, *options = sys.argv[1:]
    marks: dict[str, float] = {}

    def reached(part: str) -> None:
        marks.setdefault(part, time.perf_counter() - float(begun))

    # By name: commands lie above the benches.
    command = importlib.import_module("scripts.run")
    reached("Python and Hydra imported")
    line = importlib.import_module("scripts.command_line").COMMAND

    def composed() -> None:
        type(line).started(line)
        reached("configuration composed")
        _follow(reached)

    line.started = composed
    sys.argv = ["scripts.run", *options]
    try:
        command.main()
    finally:
        reached("command done")
        Path(path).write_text(json.dumps(marks))


def _follow(reached: Callable[[str], None]) -> None:
    """Marks what the job gets done from here on."""
    from dllm.engine.batch import Batch
    from dllm.runs import execute, run
    from dllm.tracking.wandb_tracker import WandbTracker

    reached("torch and the engine imported")
    beside = ""

    def after(owner: Any, name: str, part: str, of_each: bool = False) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            reached(beside + part if of_each else part)
            return result

        setattr(owner, name, call)

    complete = run.Run.complete

    def completed(self: run.Run, *arguments: Any, **named: Any) -> Any:
        nonlocal beside
        beside = "baseline: " if self.job == "baseline" else ""
        result = complete(self, *arguments, **named)
        if beside:
            reached("baseline done")
        return result

    run.Run.complete = completed  # type: ignore[method-assign]
    after(execute, "Checkpoint", "options checked, tokenizer read")
    after(execute, "Run", "code, model and samples known")
    after(run, "loaded", "model loaded", of_each=True)
    after(Batch, "step", "first token", of_each=True)
    after(WandbTracker, "_begin", "W&B started")
