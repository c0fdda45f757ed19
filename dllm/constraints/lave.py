"""LAVE as a reviewer: what the lookahead verifies, and what the exact check confirms, is written.

The authors only ask the lookahead, so that the answer may run out of room; here a token has to pass
both. After `retries` refusals in a row the block is rewritten to the last verified filling, and
where that is of no use the exact check decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch

from dllm.constraints.lookahead import Lookahead
from dllm.constraints.reviewing import CfgReviewer
from dllm.step.constraint import Proposal, Replacement, Verdict, Vetoes
from dllm.step.prediction import View


@dataclass
class LaveReviewer(CfgReviewer):
    lookahead: Lookahead | None = None
    retries: int = 5
    """Refusals in a row after which the block is rewritten."""
    random: Random = field(default_factory=Random)
    verified: list[int] = field(default_factory=list)
    """The last filling that was verified, from the answer's begin on."""
    failed: int = 0
    """Refusals in a row."""
    alone: int = -1
    """Step in which the exact check decides alone."""

    def _verdict(self, view: View, proposal: Proposal) -> Verdict:
        canvas = view.canvas
        if proposal.rewritten or int(canvas.step[0]) == self.alone:
            return super()._verdict(view, proposal)
        region = self.region(canvas, proposal.before).tolist()
        for number, commit in enumerate(proposal.commits):
            at = commit.position - self.start
            if not 0 <= at < len(region):
                continue
            region[at] = commit.token
            if number < proposal.accepted or self._stands(view, region, at):
                continue
            region[at] = canvas.mask_id
            self.failed += 1
            if self.failed < self.retries:
                now = proposal.before.copy()
                for other in proposal.commits[:number]:
                    now[other.position] = other.token
                vetoes = self._vetoes(view, now, [(commit.position, commit.token)], number)
                if _leaves_some(view, vetoes, commit.position):
                    return vetoes
                # Nothing else fits there, and a lookahead's refusal is no proof.
                self.alone = int(canvas.step[0])
                break
            self.failed = 0
            rewritten = self._recovered(view, proposal)
            if rewritten is not None:
                return rewritten
            self.alone = int(canvas.step[0])
            break
        else:
            self.failed = 0
        return super()._verdict(view, proposal)

    def fork(self) -> LaveReviewer:
        other = super().fork()
        other.verified = list(self.verified)
        other.random = Random()
        other.random.setstate(self.random.getstate())
        return other

    def _stands(self, view: View, region: list[int], at: int) -> bool:
        """Whether the last verified filling has the token, or another one is found."""
        assert self.lookahead is not None
        if self.verified and at < len(self.verified) and self.verified[at] == region[at]:
            return True
        self.counts.update(("checks", "lookaheads"))
        end = int(view.canvas.block_end[0]) - self.start
        probabilities = self._probabilities(view, region)
        end = min(max(end, at + 1), len(region))
        missing = [
            i for i in range(end) if region[i] == self.lookahead.mask_id and i not in probabilities
        ]
        if missing:  # not predicted in this step: nothing to look ahead with
            return True
        found = self.lookahead.verified(region, end, probabilities, self.random)
        if found is not None:
            self.verified = found
        return found is not None

    def _probabilities(self, view: View, region: list[int]) -> dict[int, np.ndarray]:
        rows = {int(p) - self.start: r for r, p in enumerate(view.positions[0].tolist())}
        assert self.lookahead is not None
        masked = [i for i, token in enumerate(region) if token == self.lookahead.mask_id]
        wanted = [i for i in masked if i in rows]
        if not wanted:
            return {}
        logits = view.logits[0, [rows[i] for i in wanted]].double()
        return dict(zip(wanted, logits.softmax(dim=-1).cpu().numpy(), strict=True))

    def _recovered(self, view: View, proposal: Proposal) -> Replacement | None:
        """The block as the last verified filling has it; None if that is no progress."""
        canvas = view.canvas
        now = proposal.before.copy()
        start = max(int(canvas.block_start[0]), self.start)
        end = min(int(canvas.block_end[0]), len(now), self.start + len(self.verified))
        written = {}
        for position in range(start, end):
            token = self.verified[position - self.start]
            if token != canvas.mask_id and now[position] == canvas.mask_id:
                written[position] = now[position] = token
        if not written or not self._fits(self.region(canvas, now)):
            return None
        return Replacement(tokens=written)


def _leaves_some(view: View, vetoes: Vetoes, position: int) -> bool:
    """Whether a token can still be proposed at the position."""
    left = (view.logits[0, view.positions[0] == position] > -torch.inf).any(dim=0)
    left[[token for at, token in vetoes.tokens if at == position]] = False
    return bool(left.any())
