"""Reads one safetensors file tensor by tensor into memory that the caller owns.

The format is an 8-byte length, a JSON header and raw bytes. Plain reads are used instead of a
memory map: mapped pages stay resident, so a checkpoint that is copied out of a map is held twice.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from dllm.errors import ConfigError


DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """One tensor of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """First byte, from the start of the file."""


class TensorFile:
    """Opened for the length of a `with` block.

    Raises `ConfigError` for a truncated file, another format, or numbers that are no floats
    (quantised weights).
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._file = path.open("rb", buffering=0)
        try:
            self._read_header(path.stat().st_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, name: str) -> Tensor:
        entry = self.entries[name]
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        self.read_into(name, tensor)
        return tensor

    def read_into(self, name: str, target: Tensor) -> None:
        """Fills `target`: contiguous, on the CPU, of the entry's dtype and size."""
        self._file.seek(self.entries[name].offset)
        view = target.view(-1).view(torch.uint8).numpy().data
        while view:
            count = self._file.readinto(view)
            if not count:
                raise self._broken(f"ends inside {name}")
            view = view[count:]

    def _read_header(self, size: int) -> None:
        length = int.from_bytes(self._file.read(8), "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise self._broken("its header does not fit the file")
        try:
            header = json.loads(self._file.read(length))
            header.pop("__metadata__", None)
            for name, fields in header.items():
                dtype = DTYPES.get(fields["dtype"])
                if dtype is None:
                    raise ConfigError(
                        f"{self.path}: {name} holds {fields['dtype']} numbers, only "
                        f"{', '.join(DTYPES)} are supported (quantised weights are not)"
                    )
                shape = tuple(int(n) for n in fields["shape"])
                start, stop = fields["data_offsets"]
                if stop - start != prod(shape) * dtype.itemsize or 8 + length + stop > size:
                    raise self._broken(f"{name} lies outside of it")
                self.entries[name] = Entry(dtype, shape, 8 + length + start)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
            raise self._broken("its header is not valid") from None

    def _broken(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} is truncated or not safetensors: {why}")
