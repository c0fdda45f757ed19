"""A run's speed under every count of tokens, and beside the published figure under that figure's
own one."""

import re
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from dllm.errors import ConfigError
from dllm.metrics.counters import COUNTERS, Speed, Vocabulary
from dllm.report.plan import published_row
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.folder import RunFolder
from dllm.runs.parts import build_parts


def speeds(path: Path) -> dict[str, Speed]:
    """By the name of the count.

    Raises `ConfigError` for what is no finished run.
    """
    folder = RunFolder(path)
    if not (path / "config.yaml").is_file() or not (samples := folder.samples()):
        raise ConfigError(f"{path} is no run's folder: it holds no config.yaml with samples")
    config = folder.config()
    parts = build_parts(config)
    checkpoint = Checkpoint(parts.model)
    tokenizer = checkpoint.tokenizer
    words = Vocabulary(
        eos=checkpoint.spec.eos_ids[0],
        encode=tokenizer.encode,
        decode=lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False),
        stop=parts.task.stop,
    )
    return {name: Speed.of(name, samples, words) for name in COUNTERS}


def table(path: Path) -> Table:
    shown = Table(
        "count", "tokens", "per forward", "per second", "definition", caption=f"run folder: {path}"
    )
    for name, speed in speeds(path).items():
        numbers = (speed.tokens, speed.per_forward, speed.per_second)
        shown.add_row(name, *(f"{number:.2f}" for number in numbers), COUNTERS[name][0])
    return shown


def beside_published(path: Path, wanted: str) -> Iterator[str]:
    """Lines: the published row, ours under its definition."""
    row, paper, _ = published_row(wanted)
    metrics = RunFolder(path).summary()["metrics"]
    yield f"published: {paper}: {row.model}, {row.benchmark}, {row.setting}"
    if row.accuracy is not None and metrics["accuracy"] is not None:
        low, high = 100 * metrics["accuracy_low"], 100 * metrics["accuracy_high"]
        ours = f"{100 * metrics['accuracy']:.2f} [{low:.2f}, {high:.2f}]"
        yield f"  score: published {row.accuracy}, here {ours} (n = {metrics['n']})"
    if row.speed is not None:
        tag = re.search(r"\[(.+)\]", row.speed)
        if tag is None or tag[1] not in COUNTERS:
            yield f"  speed: published {row.speed}; definition unknown, nothing to compare"
            return
        here = speeds(path)[tag[1]]
        yield (
            f"  speed: published {row.speed}, here {here.per_second:.2f} TPS[{tag[1]}] and "
            f"{here.per_forward:.2f} TPF[{tag[1]}] on this machine"
        )
