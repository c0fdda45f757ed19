"""Cells written down by hand: grades and forwards sample by sample."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sample_results import sample

from dllm.metrics.definitions import Summary
from dllm.report.cells import Cell
from dllm.runs.folder import RunFolder


def cell(grades: Sequence[bool], forwards: int, token: int = 4) -> Cell:
    """Every sample decoded in as many forwards, to the same token everywhere."""
    samples = [
        sample(f"{number:04d}", correct=correct, forwards={"step": forwards}, tokens=[token] * 4)
        for number, correct in enumerate(grades)
    ]
    return Cell(asdict(Summary.of(samples)), samples, RunFolder(Path("absent")))
