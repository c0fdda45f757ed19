"""What a policy remembers of each sequence between its forwards."""

from collections.abc import Callable
from typing import Generic, TypeVar

from dllm.step.canvas import Canvas, Prompt


T = TypeVar("T")


class PerSequence(Generic[T]):
    """One value per sequence in the batch: made when the sequence is first seen, dropped once it
    has left. Sequences may leave and enter between any two forwards."""

    def __init__(self, fresh: Callable[[Canvas, int], T]):
        self._fresh = fresh
        self._values: dict[int, tuple[Prompt, T]] = {}

    def rows(self, canvas: Canvas) -> list[T]:
        """The value of each row of the batch."""
        # By identity: the canvas keeps a sequence's prompt object as long as the sequence.
        self._values = {
            id(prompt): self._values.get(id(prompt)) or (prompt, self._fresh(canvas, row))
            for row, prompt in enumerate(canvas.prompts)
        }
        return [value for _, value in self._values.values()]
