"""Safetensors files, written whole and read tensor by tensor into memory that the caller owns.

The format is an 8-byte length, a JSON header and raw bytes. Plain reads are used instead of a
memory map: mapped pages stay resident, so a checkpoint that is copied out of a map is held twice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dllm.errors import ConfigError, RunError


DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_HEADER = 100_000_000


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Raises `RunError` where the disk refuses."""
    try:
        save_file(dict(tensors), path, metadata=dict(header))
        path.chmod(0o644)  # safetensors makes it private
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} can't be written: {error}") from None


@dataclass(frozen=True)
class Entry:
    """One tensor of the file."""

    stored: str
    """The file's name of the number type, e.g. BF16."""
    shape: tuple[int, ...]
    offset: int
    """First byte, from the start of the file."""


class TensorFile:
    """Opened for the length of a `with` block.

    Raises `ConfigError` for a file that is truncated, unreadable or of another format.
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries: dict[str, Entry] = {}
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror}") from None
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

    def dtype(self, name: str) -> torch.dtype:
        """Raises `ConfigError` for numbers that are no floats of 16 or 32 bits (quantised)."""
        stored = self.entries[name].stored
        if stored not in DTYPES:
            raise ConfigError(
                f"{self.path}: {name} holds {stored} numbers, only {', '.join(DTYPES)} are "
                "supported (quantised weights are not)"
            )
        return DTYPES[stored]

    def read(self, name: str) -> Tensor:
        tensor = torch.empty(self.entries[name].shape, dtype=self.dtype(name))
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
                shape = tuple(fields["shape"])
                if not all(type(size) is int and size >= 0 for size in shape):
                    raise self._broken(f"{name} has no shape")
                start, stop = fields["data_offsets"]
                dtype = DTYPES.get(fields["dtype"])
                fits = dtype is None or stop - start == prod(shape) * dtype.itemsize
                if not fits or start < 0 or 8 + length + stop > size:
                    raise self._broken(f"{name} lies outside of it")
                self.entries[name] = Entry(fields["dtype"], shape, 8 + length + start)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError):
            raise self._broken("its header is not valid") from None

    def _broken(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} is truncated or not safetensors: {why}")
