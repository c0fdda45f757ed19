"""Waiting lines of our own, by the procedure that makes the benchmark's files again."""

import json
from pathlib import Path

import pytest
import yaml

from dllm.tasks.parallelbench.generated import OPERATIONS, Lines, WaitingLines


DATA = Path("../shared/data/parallelbench")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
@pytest.mark.parametrize("kind", list(OPERATIONS))
@pytest.mark.parametrize(
    ("family", "lengths", "per_length"),
    [("waiting_line", (3, 6), 25), ("waiting_line_n15", (15, 15), 100)],
)
def test_the_published_files_come_out(
    kind: str, family: str, lengths: tuple[int, int], per_length: int
) -> None:
    first, last = yaml.safe_load((DATA / "first_last_names.yaml").read_text())
    rows = list(Lines(kind, first, last).file(*lengths, per_length))
    text = (DATA / family / f"{kind}.jsonl").read_text()
    published = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == len(published) == 100
    for ours, theirs in zip(rows, published, strict=True):
        assert ours["answer"] == theirs["answer"]
        (example,), (other,) = ours["input"]["icl_examples"], theirs["input"]["icl_examples"]
        assert example["answer"] == other["answer"]
        shown = {k: v for k, v in ours["input"].items() if k != "icl_examples"}
        assert shown.items() <= theirs["input"].items()


def test_samples_of_our_own() -> None:
    task = WaitingLines(None, min_items=3, max_items=4, per_length=2)
    samples = task.samples("test")
    assert len(samples) == 10 * 2 * 2
    assert [sample.task for sample in samples[:10]] == list(OPERATIONS)
    for sample in samples:
        assert task.assess(sample, sample.answer).correct, sample
        assert not task.assess(sample, "").correct
        (turn,) = sample.turns
        assert turn[0] != sample.prompt
    assert samples == task.samples("test", seed=3)


def test_bounds() -> None:
    with pytest.raises(ValueError, match="items 1 to 6"):
        WaitingLines(None, 1, 6, 25)
    with pytest.raises(ValueError, match="per_length=0"):
        WaitingLines(None, 3, 6, 0)
