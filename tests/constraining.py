"""Constraints for tests: one that refuses tokens, one that rewrites blocks, both on the watch for
writes that they were not shown."""

from copy import copy
from typing import Self

import numpy as np

from dllm.step.canvas import Canvas, Prompt
from dllm.step.constraint import Accepted, Allowed, Proposal, Replacement, Verdict, Vetoes
from dllm.step.prediction import View


class Forbidding:
    """Refuses some tokens everywhere, all of them where one is proposed; remembers nothing."""

    def __init__(self, tokens: set[int]):
        self.tokens = tokens

    def check(self, prompt: Prompt) -> None:
        pass

    def enter(self, canvas: Canvas, row: int) -> Self:
        return self

    def fork(self) -> Self:
        return self

    def leave(self, sequence: np.ndarray) -> str | None:
        return None

    def allowed(self, canvas: Canvas, position: int) -> Allowed:
        return Allowed()

    def review(self, view: View, proposal: Proposal) -> Verdict:
        changes = proposal.changes
        at = np.concatenate((changes.commit_positions, changes.edit_positions))
        tokens = np.concatenate((changes.commit_tokens, changes.edit_tokens))
        refused = tuple(
            (int(position), token)
            for position in at[np.isin(tokens, list(self.tokens))]
            for token in self.tokens
        )
        return Vetoes(refused) if refused else Accepted()


class Watching(Forbidding):
    """Follows a sequence from entry to end: what it accepts is all that ever changes."""

    def __init__(self, tokens: set[int]):
        super().__init__(tokens)
        self.kinds: set[str] = set()
        """Kinds of write that were accepted, over all sequences."""
        self.seen = np.zeros(0)
        """The sequence as it was accepted last."""
        self.before = np.zeros(0)
        """The sequence as it was when its last proposal came."""

    def enter(self, canvas: Canvas, row: int) -> Self:
        own = copy(self)
        own.seen = own.before = canvas.tokens[row, : canvas.length[row]].copy()
        return own

    def fork(self) -> Self:
        return copy(self)

    def leave(self, sequence: np.ndarray) -> str | None:
        assert sequence.tolist() == self.seen.tolist()
        return None

    def verdict(self, view: View, proposal: Proposal) -> Verdict:
        return super().review(view, proposal)

    def review(self, view: View, proposal: Proposal) -> Verdict:
        # A sampler that asks one by one adds to what was accepted before anything is written.
        canvas, written = view.canvas, self.before if proposal.accepted else self.seen
        self.before = proposal.before.copy()
        assert self.before.tolist() == written.tolist()
        assert canvas.tokens[0, : canvas.length[0]].tolist() == written.tolist()
        assert view.logits.shape[0] == canvas.batch == 1
        scores = [commit.score for commit in proposal.commits[proposal.accepted :]]
        assert scores == sorted(scores, reverse=True)
        verdict = self.verdict(view, proposal)
        if isinstance(verdict, Accepted):
            self.seen = proposal.after.copy()
            self.kinds |= kinds(proposal)
        return verdict


def kinds(proposal: Proposal) -> set[str]:
    """What an accepted proposal writes."""
    changes = proposal.changes
    shorter = proposal.after.size < proposal.before.size
    found = {
        "commits": changes.commit_positions.size,
        "edits": changes.edit_positions.size,
        "remasks": changes.remask_positions.size,
        "insertions": changes.inserted,
        "cuts": shorter and not changes.inserted,
        "growth": proposal.after.size > proposal.before.size,
        "fills": proposal.filled,
        "forced": changes.forced,
        "drafts": "drafted" in changes.marks,
        "rewritten": proposal.rewritten,
    }
    return {kind for kind, there in found.items() if there}


class Rewriting(Watching):
    """Replaces what the first decision of every block would write by a block of its own."""

    def __init__(self, token: int):
        super().__init__(set())
        self.token = token

    def verdict(self, view: View, proposal: Proposal) -> Verdict:
        canvas = view.canvas
        if proposal.rewritten or canvas.step_in_block[0]:
            return Accepted()
        start = int(max(canvas.block_start[0], canvas.prompt_length[0]))
        end = int(min(canvas.block_end[0], canvas.length[0]))
        return Replacement(dict.fromkeys(range(start, end), self.token))


class Strict(Forbidding):
    """Says what it lets stand before it is proposed, too; notes what it was proposed."""

    def __init__(self, tokens: set[int], vocabulary: int):
        super().__init__(tokens)
        self.vocabulary = vocabulary
        self.proposed: list[tuple[int, ...]] = []

    def allowed(self, canvas: Canvas, position: int) -> Allowed:
        assert canvas.batch == 1 and canvas.tokens[0, position] == canvas.mask_id
        return Allowed(~np.isin(np.arange(self.vocabulary), list(self.tokens)), checks=3)

    def review(self, view: View, proposal: Proposal) -> Verdict:
        self.proposed.append(tuple(commit.token for commit in proposal.commits))
        return super().review(view, proposal)
