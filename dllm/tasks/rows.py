"""Rows of public data: from a local file or, without one, from the hub."""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm.errors import ConfigError


Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a benchmark is published and which fields of its rows are used."""

    hub: str
    name: str | None = None
    """The configuration of the hub's data set."""
    fields: tuple[str, ...]

    def read(self, path: str | None, split: str) -> list[Row]:
        """All rows of a split, in the published order.

        path: a JSON or JSON Lines file (.gz too), a folder that holds `<split>.jsonl`, or what
        `datasets` reads (.parquet, .csv); None = the hub

        Raises `ConfigError` where there is no data or a row lacks a field.
        """
        where = f"task.path={path or 'null'}"
        found = _from_hub(self, split) if path is None else _from_file(Path(path), split, self)
        if not found:
            raise ConfigError(f"{where}: no rows; expected {self._expected()}")
        for number, row in enumerate(found):
            lacking = [name for name in self.fields if name not in row]
            if lacking:
                raise ConfigError(
                    f"{where}: row {number} lacks {', '.join(lacking)}; expected {self._expected()}"
                )
        return found

    def _expected(self) -> str:
        return f"rows with the fields {', '.join(self.fields)}"


def read_lines(path: Path, option: str) -> list[Row]:
    """The objects of a JSON Lines or JSON file.

    Raises `ConfigError` naming `option` and the line that is none.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        if text.lstrip().startswith("["):
            return _objects(json.loads(text), path, option)
        return _objects(list(_parsed(text, path, option)), path, option)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "holds no text that can be read"
        raise ConfigError(f"{option}={path}: {reason}") from None
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{option}={path} is no JSON: {error}") from None


def _parsed(text: str, path: Path, option: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{option}={path}: line {number} is no JSON: {error}") from None


def _objects(values: Sequence[Any], path: Path, option: str) -> list[Row]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise ConfigError(f"{option}={path}: entry {number} is no object with named fields")
    return list(values)


def _from_file(path: Path, split: str, source: Source) -> list[Row]:
    path = path.expanduser()
    if path.is_dir():
        path = path / f"{split}.jsonl"
    if not path.is_file():
        raise ConfigError(
            f"task.path={path} does not exist; expected a file of {source._expected()}, "
            f"as {source.hub} on the hub has them"
        )
    if path.suffix in (".parquet", ".csv"):
        from datasets import load_dataset  # pyarrow, only for these formats

        table = load_dataset(path.suffix[1:], data_files=str(path), split="train")
        return [dict(row) for row in table]  # type: ignore[arg-type]
    return read_lines(path, "task.path")


def _from_hub(source: Source, split: str) -> list[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        table = load_dataset(source.hub, source.name, split=split)
    except DatasetNotFoundError:
        why = "there is no such data set, or it needs a token"
    except (OSError, ValueError) as error:
        why = f"the hub can't be read: {type(error).__name__}"
    else:
        return [dict(row) for row in table]  # type: ignore[arg-type]
    raise ConfigError(
        f"task.path=null: {source.hub} can't be fetched ({why}); "
        f"name a local file of {source._expected()}"
    )
