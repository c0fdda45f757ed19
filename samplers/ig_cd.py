"""IG-CD, constrained decoding with context-free grammars (arXiv 2508.10111): LLaDA's fixed quota,
one token at a time.

Rule: of the block's masks the most confident proposal comes first. The constraint takes it or
refuses this one token; the position then proposes its next best and all are ranked anew, on the
same forward, until the step's quota is taken. Confidence is p of the proposed token in the float64
softmax; at temperature 0 the authors' code edits the logits that it is read from, so that a refusal
raises the confidence of the position's other tokens, at temperature > 0 only the noisy copy [code].

As the authors ran it (`experiment=cfg/jsonmode_llada`): gen_length 256, steps 32, blocks of 32,
temperature 0.2, `eos=fill_at_once` (an end token fills everything to its right, decided or not),
`constraint.gap=any` (their check takes a run of masks for any text), `constraint.budget=100` (the
100th refusal ends the sample) and `constraint.patience=null`. They complete an unfinished answer by
a short text afterwards, and their constrained figures include it; here it counts as a failure, and
its completion and whether that is correct stand beside it (`completion` and the score `completed`
of a sample; fewest bytes, where theirs has few terminals). Their 60 seconds of wall clock per
sample are no limit here. Their loop for Dream draws anew for every proposal: it is not this one,
which also runs on models of shifted logits.
"""

from dataclasses import dataclass
from typing import ClassVar

from samplers.parts.proposers import Greedy
from samplers.parts.quota import StaticQuota


@dataclass(frozen=True, kw_only=True)
class IgCd(StaticQuota):
    one_by_one: ClassVar[bool] = True

    @property
    def renormalises(self) -> bool:
        return isinstance(self.proposer, Greedy)
