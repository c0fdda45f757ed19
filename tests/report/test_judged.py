"""Columns that compare with the base and with the first row."""

from collections.abc import Callable

import pytest
from sample_results import sample
from written_runs import write_run

from dllm.report.bits import RunBits
from dllm.report.cells import Cell, measure
from dllm.report.columns import BESIDE, COLUMNS
from dllm.report.judged import agreeing, perplexity
from dllm.runs.folder import RunFolder


def test_perplexity_is_that_of_the_probabilities(options: Callable[..., list[str]]) -> None:
    """An autoregressive model's own greedy answers: its trace knows every probability."""
    own = [
        "model=tiny-ar",
        "model.path=null",
        "sampler=left_to_right",
        "cache=causal",
        "eos=cut",
        "trace=true",
    ]
    cell = measure(options("task=listops", "limit=3", *own))
    tokens = sum(one.effective for one in cell.samples)
    bits = RunBits.of(cell.folder).effective_bits * len(cell.samples)
    value, low, high = perplexity(cell)
    assert value == pytest.approx(2 ** (bits / tokens), rel=1e-3)
    assert low <= value <= high
    assert COLUMNS["perplexity"].show(cell).startswith(f"{value:.2f} [")


def test_answers_that_end_with_the_same_number() -> None:
    ours, theirs = ["It is 1,200.", "so 5", "Ada"], ["1200", "5 or 6", " Ada"]
    assert agreeing(ours, theirs, numbered=True) == 2
    assert agreeing(ours, theirs, numbered=False) == 1


def test_answers_to_no_number_are_compared_whole(tmp_path) -> None:
    """Two records of the same age are two answers of extraction, and one to a word problem."""
    shown = {}
    for task in ("json", "gsm8k"):
        cells = []
        for number, name in enumerate(("Ada", "Bob")):
            said = [sample("0", output=f'{{"name": "{name}", "age": 31}}')]
            options = (f"task={task}", f"seed={number}")
            folder = RunFolder(write_run(tmp_path, "threshold", said, *options))
            cells.append(Cell.of(folder, folder.summary()))
        shown[task] = BESIDE["agreement"].show(*cells)[:4]
    assert shown == {"json": "0.00", "gsm8k": "1.00"}


def test_columns_beside_the_first_row(tmp_path) -> None:
    cells = []
    for name, forwards, output in (("ar", [8, 8], "is 4"), ("deer", [2, 4], "is 4.")):
        results = [
            sample(
                str(i),
                output=output if i else "nothing",
                forwards={"step": 9},
                other_forwards={"verifier step": count} if name == "deer" else {},
            )
            for i, count in enumerate(forwards)
        ]
        if name == "ar":
            results = [sample(str(i), output="is 4", forwards={"step": 8}) for i in range(2)]
        folder = RunFolder(write_run(tmp_path, name, results, "task=gsm8k"))
        cells.append(Cell.of(folder, folder.summary()))
    first, other = cells
    assert BESIDE["of the first"].show(other, first) == "0.38 [0.25, 0.50]"
    assert BESIDE["agreement"].show(other, first).startswith("0.50 [")
    assert COLUMNS["canvases"].show(other) == "9.00"
