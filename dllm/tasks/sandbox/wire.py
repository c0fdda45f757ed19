"""Values between the program's process and the tests': plain data, decoded without executing any.

Standard library only, and no import of this project: both processes load this file by its path.
"""

import builtins
import json
import os
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any


LARGEST_MESSAGE = 16 << 20  # bytes
LONGEST_ITERATOR = 100_000  # items that are sent of an iterator

SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def encode(value: Any, other: Callable[[Any], list]) -> Any:
    """JSON of a value; `other` encodes what is no plain data. Subclasses become their base."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return ["int", hex(int.__index__(value))]  # decimal digits are limited, these are not
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, complex):
        return ["complex", float.hex(value.real), float.hex(value.imag)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return [name, [encode(item, other) for item in kind.__iter__(value)]]
    if isinstance(value, dict):
        return ["dict", [[encode(k, other), encode(v, other)] for k, v in dict.items(value)]]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if isinstance(value, Decimal):
        return ["Decimal", Decimal.__str__(value)]
    if isinstance(value, Fraction):
        return ["Fraction", hex(value.numerator), hex(value.denominator)]
    if hasattr(type(value), "__next__"):
        items = []
        for item in value:
            items.append(encode(item, other))
            if len(items) > LONGEST_ITERATOR:
                raise ValueError(f"an iterator of more than {LONGEST_ITERATOR} items")
        return ["iterator", items]
    return other(value)


def decode(data: Any, other: Callable[[list], Any]) -> Any:
    """The value of `encode`d data; `other` decodes what the other side's `other` made."""
    if not isinstance(data, list):
        return data
    name, *rest = data
    if name == "int":
        return int(rest[0], 16)
    if name == "float":
        return float.fromhex(rest[0])
    if name == "complex":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    if name == "bytes":
        return bytes.fromhex(rest[0])
    if name in SEQUENCES:
        return SEQUENCES[name](decode(item, other) for item in rest[0])
    if name == "dict":
        return {decode(k, other): decode(v, other) for k, v in rest[0]}
    if name == "range":
        return range(*rest)
    if name == "Decimal":
        return Decimal(rest[0])
    if name == "Fraction":
        return Fraction(int(rest[0], 16), int(rest[1], 16))
    if name == "iterator":
        return iter([decode(item, other) for item in rest[0]])
    return other(data)


def error_of(name: Any, message: Any) -> Exception:
    """An exception of the built-in type of that name, of `Exception` where there is none."""
    kind = getattr(builtins, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return Exception(f"{name}: {message}")
    try:
        return kind(str(message))
    except TypeError:  # UnicodeDecodeError and the like take more
        return Exception(f"{name}: {message}")


def send(pipe: int, message: Any) -> None:
    data = json.dumps(message).encode()
    if len(data) > LARGEST_MESSAGE:
        raise ValueError(f"a value of more than {LARGEST_MESSAGE} bytes")
    view = memoryview(struct.pack(">I", len(data)) + data)
    while view:
        view = view[os.write(pipe, view) :]


def receive(pipe: int) -> Any:
    """Raises `EOFError` where the other side is gone or sends no message."""
    (size,) = struct.unpack(">I", _read(pipe, 4))
    if size > LARGEST_MESSAGE:
        raise EOFError("a message beyond its limit")
    return json.loads(_read(pipe, size))


def _read(pipe: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(pipe, min(size - len(data), 1 << 20))
        if not part:
            raise EOFError("the program ended")
        data += part
    return data
