"""GGUF files: metadata and dequantised tensors, as far as the packaged model needs them.

Layout (ggml's specification, version 3, little-endian): magic, version, counts, typed key-value
pairs, one record per tensor (name, shape fastest axis first, type, offset), aligned data. Sizes in
the header are checked against the file before anything is allocated.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from torch import Tensor

from dllm.errors import ConfigError


MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
"""Of the tensor data; files may say otherwise under `general.alignment`."""

_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Encoding:
    """How `count` consecutive numbers are stored in `size` bytes."""

    name: str
    count: int
    size: int
    decode: Callable[[np.ndarray], np.ndarray]
    """uint8 [groups, size] -> float32 [groups, count]"""


def _q4_1(raw: np.ndarray) -> np.ndarray:
    """Scale and minimum in float16, then 32 numbers of four bits: low halves, high halves."""
    scale, low = raw[:, :4].copy().view(np.float16).astype(np.float32).T[..., None]
    codes = np.concatenate((raw[:, 4:] & 15, raw[:, 4:] >> 4), axis=1)
    return codes * scale + low


def _q8_0(raw: np.ndarray) -> np.ndarray:
    """Scale in float16, then 32 signed bytes."""
    scale = raw[:, :2].copy().view(np.float16).astype(np.float32)
    return raw[:, 2:].view(np.int8) * scale


ENCODINGS = {
    0: Encoding("F32", 1, 4, lambda raw: raw.copy().view(np.float32)),
    1: Encoding("F16", 1, 2, lambda raw: raw.copy().view(np.float16).astype(np.float32)),
    3: Encoding("Q4_1", 32, 20, _q4_1),
    8: Encoding("Q8_0", 32, 34, _q8_0),
}


@dataclass(frozen=True)
class Entry:
    encoding: Encoding
    shape: tuple[int, ...]
    """Slowest axis first, as torch counts."""
    start: int
    """Byte of the file."""

    @property
    def size(self) -> int:
        return prod(self.shape) // self.encoding.count * self.encoding.size


class GgufFile:
    """An open file; raises `ConfigError` for one that is damaged or of another kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        self._size = path.stat().st_size
        self._file: BinaryIO = path.open("rb")
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, OverflowError, MemoryError):
            self._file.close()
            raise self._broken("its header is not valid") from None
        except ConfigError:
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

    def tensor(self, name: str) -> Tensor:
        """float32, dequantised."""
        entry = self.entries[name]
        self._file.seek(entry.start)
        raw = np.frombuffer(self._file.read(entry.size), dtype=np.uint8)
        values = entry.encoding.decode(raw.reshape(-1, entry.encoding.size))
        return torch.from_numpy(values.reshape(entry.shape))

    def _read_header(self) -> None:
        if self._file.read(4) != MAGIC:
            raise ConfigError(f"{self.path} is not a GGUF file")
        version = self._scalar("I")
        if version != VERSION:
            raise ConfigError(f"{self.path} is GGUF version {version}, only {VERSION} is read")
        tensors, pairs = self._scalar("Q"), self._scalar("Q")
        for _ in range(pairs):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("I"))
        records = [self._record() for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._broken(f"its alignment is {alignment!r}")
        data = -(-self._file.tell() // alignment) * alignment
        for name, encoding, shape, offset in records:
            entry = Entry(encoding, shape, data + offset)
            if prod(shape) % encoding.count or entry.start + entry.size > self._size:
                raise self._broken(f"{name} lies outside of it")
            self.entries[name] = entry

    def _record(self) -> tuple[str, Encoding, tuple[int, ...], int]:
        name, axes = self._string(), self._scalar("I")
        if not 1 <= axes <= 4:
            raise self._broken(f"{name} has {axes} axes")
        shape = tuple(self._scalar("Q") for _ in range(axes))[::-1]
        kind = self._scalar("I")
        if kind not in ENCODINGS:
            known = ", ".join(encoding.name for encoding in ENCODINGS.values())
            raise ConfigError(
                f"{self.path}: {name} is stored as type {kind}, only {known} are read"
            )
        return name, ENCODINGS[kind], shape, self._scalar("Q")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            of, count = self._scalar("I"), self._scalar("Q")
            # Every item takes a byte at least; arrays of arrays are in no model's file.
            if of == _ARRAY or count > self._size:
                raise self._broken("its header does not fit the file")
            return [self._value(of) for _ in range(count)]
        if kind not in _SCALARS:
            raise self._broken(f"its header holds a value of type {kind}")
        return self._scalar(_SCALARS[kind])

    def _scalar(self, code: str) -> Any:
        size = struct.calcsize(f"<{code}")
        return struct.unpack(f"<{code}", self._file.read(size))[0]

    def _string(self) -> str:
        length = self._scalar("Q")
        if length > self._size:
            raise self._broken("its header does not fit the file")
        return self._file.read(length).decode()

    def _broken(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} is truncated or damaged: {why}")
