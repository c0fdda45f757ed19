"""What the public benchmarks share: rows of a file, in its order, each of them one sample."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dllm.tasks.base import Sample, Split, Task, content_id
from dllm.tasks.rows import Row, Source


class PublicTask(Task):
    """One kind; its samples are the rows of one split."""

    source: Source

    def __init__(self, path: str | None) -> None:
        self.path = path

    @abstractmethod
    def question(self, row: Row) -> str:
        """What the user asks."""

    @abstractmethod
    def reference(self, row: Row) -> str:
        """An output that is graded correct."""

    def rows(self, split: Split, beside: bool = False) -> list[Row]:
        """All rows of a split; `beside`: of the file `<split>.jsonl` next to the one given."""
        path = self.path
        if beside and path is not None and not Path(path).expanduser().is_dir():
            path = str(Path(path).expanduser().parent)
        return self.source.read(path, split)

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """The first `limit` rows (None: all); a benchmark is one fixed list whatever the seed."""
        rows = self.rows(split)[:limit]
        return [self.sample(number, row) for number, row in enumerate(rows)]

    def sample(self, number: int, row: Row) -> Sample:
        return identified(self.kinds[0], number, row, self.question(row), self.reference(row))


def identified(
    kind: str,
    number: int,
    row: Row,
    prompt: str,
    answer: str,
    turns: tuple[tuple[str, str], ...] = (),
    prefix: str = "",
) -> Sample:
    """A sample whose id also says which row it is: benchmarks ask some questions twice."""
    asked = "\n".join([*(text for turn in turns for text in turn), prompt, prefix])
    meta: dict[str, Any] = {"row": row, "index": number}
    sample_id = content_id(kind, f"{number}\n{asked}")
    return Sample(sample_id, kind, prompt, answer, MappingProxyType(meta), turns, prefix=prefix)
