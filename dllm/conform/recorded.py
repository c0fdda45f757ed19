"""Files of recorded behaviour, and what the replay of one finds."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dllm.config import fits
from dllm.errors import ConfigError


@dataclass(frozen=True)
class Recorded:
    """One file: cases of one method, each with its inputs and what came out."""

    path: Path
    content: Mapping[str, Any]

    @property
    def method(self) -> str:
        return self.content["method"]

    @property
    def cases(self) -> list[Any]:
        return self.content["cases"]


def read(path: Path) -> Recorded:
    """Raises `ConfigError` for a file that holds no recorded cases."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no recorded file: {error}") from None
    found = content if isinstance(content, dict) else {}
    cases = found.get("cases")
    if not isinstance(found.get("method"), str) or not isinstance(cases, list) or not cases:
        raise ConfigError(f"{path} is no recorded file: it has no method and cases")
    return Recorded(path, found)


def check_cases(recorded: Recorded, fields: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for a case that lacks one of the fields or holds no value of its
    type."""
    for number, case in enumerate(recorded.cases):
        for name, hint in fields.items():
            if not isinstance(case, dict) or not fits(case.get(name), hint):
                raise ConfigError(f"case {number}: {name} is missing or of another kind")


@dataclass(frozen=True)
class Places:
    """Where a replay finds what a file only names, and where it decodes."""

    checkpoints: tuple[Path, ...] = ()
    """Folders of checkpoints that were asked for; they go before the folder beside a trace."""
    fallback: tuple[Path, ...] = ()
    """Folders of checkpoints for traces that have none beside them."""
    data: Path = Path()
    """ParallelBench's own files, behind recorded grades."""
    device: str = "cpu"
    """Where the checkpoints decode, in float32."""


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class FileResult:
    """What was recorded in one place against ours."""

    path: Path
    verdict: Verdict
    cases: int = 0
    differing: tuple[str, ...] = ()
    """What differs, one text per case."""
    reason: str = ""
    """Why nothing could be compared."""

    @staticmethod
    def of(path: Path, found: Iterable[str | None]) -> "FileResult":
        """`found` says per case what differs, None if nothing does."""
        found = tuple(found)
        differing = tuple(text for text in found if text is not None)
        verdict = Verdict.FAILED if differing else Verdict.PASSED
        return FileResult(path, verdict, len(found), differing)

    def line(self) -> str:
        words = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[self.verdict]
        if self.reason:
            named = str(self.path) in self.reason
            return f"{words} {self.reason}" if named else f"{words} {self.path}: {self.reason}"
        good = self.cases - len(self.differing)
        first = f"; {self.differing[0]}" if self.differing else ""
        return f"{words} {self.path}: {good}/{self.cases} cases{first}"
