"""A time limit that long computations look at themselves."""

import time
from dataclasses import dataclass


class Undecided(Exception):
    """A time limit passed before the answer was known."""


@dataclass(frozen=True)
class Deadline:
    """A moment by the processor time of the thread that computes: what else the machine does at
    the same time changes no answer."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.thread_time() + seconds)

    @property
    def left(self) -> float:
        """Seconds; negative once it has passed."""
        return self.at - time.thread_time()

    def check(self) -> None:
        """Raises `Undecided` once the moment has passed."""
        if time.thread_time() > self.at:
            raise Undecided


NEVER = Deadline(float("inf"))
