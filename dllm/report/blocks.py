"""Blocks and canvases that adapt, beside fixed ones, on the embedded tasks.

Every cell is an ordinary run (same folder, same resume as `scripts.run`). Blocks are read from the
traces; the wasted canvas is the share of positions that the answer did not need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


TASKS = ("listops", "arithmetic", "json", "latin")
_LARGE_CANVAS = ["gen_length=128", "batch_size=4"]
_DELIMITERS = 'sampler.region.delimiters=["\n",",","}"]'
CASES: dict[str, list[str]] = {
    **{
        f"blocks of {n}": ["sampler=threshold", f"sampler.region.block_length={n}"]
        for n in (8, 16, 32)
    },
    **{
        f"adablock, default {n}": [
            "sampler=adablock",
            f"sampler.region.default_block_length={n}",
            _DELIMITERS,
        ]
        for n in (8, 16, 32)
    },
    "localleap in adaptive blocks": [
        "sampler=localleap",
        "sampler/region=adaptive",
        "sampler.region.default_block_length=16",
        _DELIMITERS,
    ],
    "bacd in blocks of 16": [
        "sampler=bacd",
        "sampler/region=fixed",
        "sampler.region.block_length=16",
    ],
    **{
        f"fixed canvas, {n}": ["sampler=threshold", f"gen_length={n}", "batch_size=4"]
        for n in (32, 64, 128)
    },
    "daedal": [
        "sampler=daedal",
        "sampler.region.initial_length=16",
        "sampler.eos_window=8",
        *_LARGE_CANVAS,
    ],
    "rho_eos": ["sampler=rho_eos", "sampler.region.initial_length=32", *_LARGE_CANVAS],
    "dystruct (reconstruction)": [
        "sampler=dystruct",
        "sampler.region.largest_window=32",
        'sampler.delimiters=["\n",",","}"]',
        *_LARGE_CANVAS,
    ],
    "dystruct (reconstruction), no quota, no welding": [
        "sampler=dystruct",
        "sampler.region.largest_window=32",
        'sampler.delimiters=["\n",",","}"]',
        "sampler.quota=false",
        "sampler.weld_radius=0",
        *_LARGE_CANVAS,
    ],
}
"""Row -> options of `scripts.run`."""
_RUN = ["tracker=none", "progress=false", "trace=true", "baseline=false"]


@dataclass(frozen=True)
class Row:
    """One case on one task."""

    metrics: Mapping[str, Any]
    block: float
    """Mean length of the blocks that were decoded; of a window for dystruct."""
    wasted: float
    """Share of the final canvas behind the first end token."""

    @classmethod
    def of(cls, folder: RunFolder, metrics: Mapping[str, Any]) -> "Row":
        opened = [s.opened for trace in folder.traces() for s in trace.steps if s.opened]
        samples = folder.samples()
        canvas = sum(len(sample.tokens) for sample in samples)
        used = sum(sample.effective for sample in samples)
        lengths = [end - max(start, 0) for start, end in opened]
        return cls(metrics, sum(lengths) / max(1, len(lengths)), 1 - used / max(1, canvas))

    def line(self, name: str) -> str:
        m = self.metrics
        interval = f"[{m['accuracy_low']:.3f}, {m['accuracy_high']:.3f}]"
        return (
            f"| {name} | {m['n']} | {m['accuracy']:.3f} {interval} | {m['nfe']:.2f} "
            f"| {m['tpf']:.2f} | {self.block:.1f} | {self.wasted:.2f} |"
        )


def blocks(output: Path, limit: int, cases: Sequence[str] = (), tasks: Sequence[str] = ()) -> None:
    """Decodes what is missing and writes the page."""
    for name in cases:
        if name not in CASES:
            raise ConfigError(f"--samplers {name!r} is not one of {', '.join(CASES)}")
    lines = [
        "# Adaptive blocks and growing canvases on the embedded tasks",
        "",
        f"`python -m scripts.report embedded blocks --limit {limit}`: tiny-llada, float32 on the",
        "CPU, gen_length 32 unless a canvas is named, seed 0; 128 positions at most where the",
        "canvas grows. Accuracy is exact match with a 95 % Wilson interval, NFE the forwards per",
        "sample, TPF the tokens before the first end token per forward. The wasted canvas is the",
        "share of its final positions from the first end token on.",
        "",
        "`dystruct` is a reconstruction without public code: its rows say nothing about the paper.",
        "The model has seen canvases of 32 to 96 positions in training and answers of at most 32.",
    ]
    for task in tasks or TASKS:
        lines += ["", f"## {task}", ""]
        lines.append("| case | n | accuracy [95 %] | NFE | TPF | mean block | wasted canvas |")
        lines.append("|---|---|---|---|---|---|---|")
        for name in cases or CASES:
            options = CASES[name]
            config = compose([f"task={task}", f"limit={limit}", *_RUN, *options])
            folder, summary = execute(config, options[0].removeprefix("sampler="))
            row = Row.of(RunFolder(folder), summary["metrics"]).line(name)
            print(f"{task} {row}", flush=True)
            lines.append(row)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")
