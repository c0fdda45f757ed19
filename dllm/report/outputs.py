"""The texts that own prompts were answered with."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dllm.printable import printable
from dllm.runs.folder import RunFolder
from dllm.tasks.base import Sample


SHOWN = 20
"""Texts that are printed; more of them are read in the run's folder."""


def print_outputs(folder: Path, samples: Sequence[Sample]) -> None:
    """In the order of the samples, each below its prompt if there are several."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    found = {result.id: result for result in RunFolder(folder).samples()}
    for sample in samples[:SHOWN]:
        result = found[sample.id]
        if len(samples) > 1:
            console.print(printable(f"> {sample.prompt}"), style="dim")
        shown = result.output if result.failure is None else f"failed: {result.failure}"
        console.print(printable(shown))
    if len(samples) > SHOWN:
        console.print(f"... {len(samples) - SHOWN} more in {folder / 'samples.jsonl'}")
