"""Progressive block extension (TDAR, arXiv 2602.09555): larger blocks in stages, not in one jump.

Two courses of as many steps start from the same checkpoint: `progressive` trains one block size
after the other, `direct` the last one all the time. Then both and the checkpoint itself are
measured at every block size, one token per step: what a model loses with blocks it was not trained
for, and what the stages keep. The authors' stages and data are not released. Finished stages are
kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer

from dllm.config import build, compose, fingerprint, full_paths
from dllm.errors import ConfigError
from dllm.metrics.statistics import wilson
from dllm.models.config_reader import Overrides
from dllm.models.loading import load_model, read_spec
from dllm.runs.labels import differences
from dllm.tasks.suite import EmbeddedSuite
from dllm.tracking.tracker import RunInfo, Tracker
from dllm.training.block_noise import BlockNoise
from dllm.training.checks import not_below
from dllm.training.evaluate import accuracy
from dllm.training.metric_log import MetricLog
from dllm.training.sft import Recipe, Trainer
from dllm.training.vocabulary import read_tokenizer


@dataclass(frozen=True, kw_only=True)
class Extension:
    start: str
    """Block-causal checkpoint folder that both courses start from."""
    sizes: Sequence[int]
    """Block sizes of the stages, ascending, each larger than the checkpoint's."""
    recipe: Recipe
    """Of a course: its steps are shared evenly by the stages."""
    items: int
    """Held-out samples per kind."""

    def __post_init__(self) -> None:
        stages, steps = len(self.sizes), self.recipe.total_steps
        if not stages:
            raise ConfigError("extension.sizes=[] names no block size")
        if steps % stages:
            raise ConfigError(
                f"extension.recipe.total_steps={steps} are not shared evenly by {stages} stages "
                f"(extension.sizes={list(self.sizes)})"
            )
        not_below(self, "extension", 1, "items")

    def courses(self) -> dict[str, list[int]]:
        return {"progressive": list(self.sizes), "direct": list(self.sizes[-1:])}


def execute(config: DictConfig) -> None:
    """Trains both courses, prints the table and writes it to `table`."""
    extension: Extension = build(config.extension, "extension")
    tokenizer_path, start = Path(config.tokenizer), Path(extension.start)
    tokenizer = read_tokenizer("tokenizer", tokenizer_path)
    if not (start / "config.json").is_file():
        raise ConfigError(f"extension.start={start} is no checkpoint folder")
    trained = read_spec(start).block_size
    if trained is None or sorted({trained, *extension.sizes}) != [trained, *extension.sizes]:
        raise ConfigError(
            f"extension.sizes={list(extension.sizes)} do not ascend from the block of {trained} "
            f"that {start} was trained for"
        )
    output = Path(config.output)
    tracker: Tracker = build(config.tracker, "tracker")
    plain = OmegaConf.to_container(config, resolve=True)
    tracker.start(RunInfo(output, fingerprint(config), "train block_extension", plain))  # type: ignore[arg-type]
    try:
        ends = {"checkpoint": start}
        for name, sizes in extension.courses().items():
            with full_paths(config.extension, "extension"):
                ends[name] = _train(extension, sizes, tokenizer, output / name, tracker)
        sizes = [trained, *extension.sizes]
        text = _table(extension, ends, sizes, tokenizer, _command(config))
    finally:
        tracker.finish()
    table = Path(config.table)
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(text)
    print(text)


def _command(config: DictConfig) -> str:
    """What makes the same table again."""
    default = compose([], "train_block_extension").extension
    changed = differences(config.extension, default, "extension.")
    return " ".join([config.command, *map(shlex.quote, changed)])


def _train(
    extension: Extension, sizes: list[int], tokenizer: Tokenizer, folder: Path, tracker: Tracker
) -> Path:
    """One course; returns its checkpoint."""
    start = Path(extension.start)
    for size in sizes:
        recipe = replace(
            extension.recipe,
            start=str(start),
            total_steps=extension.recipe.total_steps // len(sizes),
            objective=BlockNoise(size, "block"),
        )
        stage = folder / f"block-{size}"
        # Compiled for the model before; the compiler keeps a few variants and then gives up.
        torch.compiler.reset()
        spec = replace(read_spec(start), block_size=size)
        trainer = Trainer(spec, tokenizer, recipe, stage)
        trainer.resume()
        with closing(MetricLog(stage / "metrics.jsonl", tracker, trainer.done)) as log:
            trainer.run(log)
        start = stage / "model"
    return start


def _table(
    extension: Extension,
    checkpoints: dict[str, Path],
    sizes: list[int],
    tokenizer: Tokenizer,
    command: str,
) -> str:
    suite = EmbeddedSuite()
    samples = suite.samples("test", extension.items * len(suite.kinds))
    stages = ", ".join(map(str, extension.sizes))
    lines = [
        "# Progressive block extension",
        "",
        f"`{command}`: from `{extension.start}`, trained for blocks of {sizes[0]}, "
        f"{extension.recipe.total_steps} further steps per course, either in stages of blocks of "
        f"{stages} (progressive) or all of them with blocks of {sizes[-1]} (direct), seed "
        f"{extension.recipe.seed}. Accuracy by the attention's block size in decoding, one token "
        f"per step, n = {len(samples)} held-out samples per cell ({extension.items} of each of "
        f"{len(suite.kinds)} kinds, the same ones in all cells), with a 95 % Wilson interval.",
        "",
        "| block size | " + " | ".join(checkpoints) + " |",
        "|---|" + "---|" * len(checkpoints),
    ]
    for size in sizes:
        cells = []
        for folder in checkpoints.values():
            model = load_model(folder, overrides=Overrides(block_size=size))
            scores = accuracy(model, tokenizer, suite, samples)
            correct = round(sum(scores.values()) * extension.items)
            low, high = wilson(correct, len(samples))
            cells.append(f"{correct / len(samples):.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"
