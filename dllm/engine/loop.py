"""Decoding a stream of prompts: a session that is fed and emptied."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from dllm.engine.session import Session
from dllm.engine.setting import Setting
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome


def longest_first(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Prompts in the order in which they fill batches best: neighbours are of about the same
    length, no long one is left to be decoded alone, and the first batch makes memory for all.

    With answers of one to four blocks that is a fifth to a third fewer forwards at batch 4 and 16,
    with the same number of rows (`batch` bench's queue, counted).
    """
    return sorted(prompts, key=lambda prompt: len(prompt.tokens) + prompt.gen_length, reverse=True)


class Decoder(Setting):
    """Decodes prompts under one setting."""

    def decode(
        self, prompts: Iterable[Prompt], stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Outcome]:
        """Outcomes in the order in which sequences finish.

        Prompts are taken as places become free, so that their number may be endless; a list is
        checked as a whole before the first forward and decoded from the longest canvas to the
        shortest where sequences share a batch. Raises `ConfigError` for a prompt that can't be
        decoded; a sequence whose logits are not finite is reported as failed and the others go on.
        Once `stopped` says so, what is in the batch is finished and no prompt enters any more.
        """
        session, coming = Session(self), iter(prompts)
        if isinstance(prompts, Sequence):
            coming = iter(longest_first(prompts) if self.batch_size > 1 else prompts)
            for prompt in coming:
                session.submit(prompt)
        while True:
            if stopped():
                session.close()
                coming = iter(())
            for prompt in islice(coming, session.room):
                session.submit(prompt)
            if not session.busy:
                return
            for _, outcome in session.step().finished:
                yield outcome

    def check(self, prompts: Iterable[Prompt]) -> None:
        """Raises `ConfigError` for what can't be decoded together or at all."""
        self.check_parts()
        for prompt in prompts:
            self.admit(prompt)
