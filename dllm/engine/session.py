"""A session: sequences come and go, one decision at a time, in memory that is allocated once.

    ticket = session.submit(prompt)
    while session.busy:
        events = session.step()

Waiting prompts enter in the order of their submission, as places become free. Memory is made for
`batch_size` sequences when the first of them enter, long enough for every prompt that waits then; a
place that a finished sequence leaves is handed on. A prompt that needs more positions waits until
the batch has run empty, and memory is made anew: at least twice as long, up to the model's
positions.
"""

from collections import deque
from dataclasses import dataclass, replace

import torch

from dllm.engine.batch import Batch, Written
from dllm.engine.row import Ticket
from dllm.engine.setting import Setting
from dllm.step.canvas import Layout, Prompt
from dllm.step.outcome import Outcome
from dllm.step.trace import Trace


@dataclass(frozen=True)
class Events:
    """What one step brought."""

    written: tuple[tuple[Ticket, Written], ...]
    """Of every sequence in the batch."""
    finished: tuple[tuple[Ticket, Outcome], ...]


@dataclass(frozen=True)
class _Waiting:
    ticket: Ticket
    prompt: Prompt
    layout: Layout


class Session:
    """Decodes submitted prompts; raises `ConfigError` for parts that do not go together."""

    def __init__(self, setting: Setting):
        setting.check_parts()
        self.setting = setting
        self._waiting: deque[_Waiting] = deque()
        self._submitted = 0
        self._batch = Batch(setting, setting.positions or 0)

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting) or self._batch.live > 0

    @property
    def room(self) -> int:
        """Prompts that would enter the batch with the next step."""
        return max(self.setting.batch_size - self._batch.live - len(self._waiting), 0)

    def submit(self, prompt: Prompt) -> Ticket:
        """Puts a prompt in the queue.

        Raises `ConfigError` for one that does not fit the model, the region, the schedule or the
        session's positions.
        """
        prompt, layout = self.setting.admit(prompt)
        ticket = Ticket(self._submitted)
        self._submitted += 1
        # A sequence is known by its prompt object: the same one may be submitted twice.
        self._waiting.append(_Waiting(ticket, replace(prompt), layout))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Gives a sequence up: nothing more is reported of it. One that has finished is left."""
        self._waiting = deque(entry for entry in self._waiting if entry.ticket != ticket)
        self._batch.cancel(ticket)

    def close(self) -> None:
        """Gives up every sequence that waits; those in the batch go on."""
        self._waiting.clear()

    def trace(self, ticket: Ticket) -> Trace | None:
        """What is recorded so far of a sequence in the batch; None where nothing is."""
        return self._batch.trace(ticket)

    def change(self, setting: Setting) -> None:
        """Goes on with another sampler or end-of-answer policy: what is decided, remembered and
        stored stays, and so does the block that is open.

        Raises `ConfigError` for parts that do not go together, and for a sampler that would have
        laid the sequences out otherwise or that remembers what the steps so far have not told.
        """
        setting.check_parts()
        self._batch.change(setting)
        self.setting = setting

    def step(self) -> Events:
        """Lets waiting prompts in and takes one decision for every sequence in the batch."""
        # As a decorator it would be copied for each step.
        with torch.inference_mode():
            self._enter()
            if not self._batch.live:
                return Events((), ())
            written, finished = self._batch.step()
            return Events(tuple(written), tuple(finished))

    def _enter(self) -> None:
        batch, limit = self._batch, self.setting.predictor.spec.max_positions
        if self._waiting and not batch.live and self._waiting[0].layout.capacity > batch.capacity:
            needed = max(entry.layout.capacity for entry in self._waiting)
            self._batch = batch = Batch(self.setting, max(needed, min(2 * batch.capacity, limit)))
        while self._waiting and batch.live < self.setting.batch_size:
            if self._waiting[0].layout.capacity > batch.capacity:
                break
            entry = self._waiting.popleft()
            batch.enter(entry.ticket, entry.prompt, entry.layout)
        batch.close_gaps()
