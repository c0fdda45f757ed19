"""A time limit that long computations look at themselves."""

import time
from dataclasses import dataclass

from dllm.constraints.errors import Undecided


@dataclass(frozen=True)
class Deadline:
    """A moment by the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    def check(self) -> None:
        """Raises `Undecided` once the moment has passed."""
        if time.monotonic() > self.at:
            raise Undecided


NEVER = Deadline(float("inf"))
