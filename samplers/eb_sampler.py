"""EB-Sampler (arXiv 2505.24857): commit as much as an entropy budget allows.

Rule: order the candidates by an error proxy, take the longest prefix whose entropies (nats) satisfy
sum - max <= gamma, at least one. The maximum is free: one arbitrarily uncertain token can ride
along. `bound: preceding` is d2Cache's form at batch 1, sum without the last <= gamma (the same if
the order is by entropy); with more rows its running maximum mixes them, a bug not followed.

No official code; the default follows NEUIR/PC-Sampler [re-implementation]: order by entropy of the
raw logits in their dtype, no blocks, gamma 0.1 (its scripts: 0.01), `eb_d2cache` follows d2Cache
(order by confidence, gamma 0.001) [re-implementation]. 2 to 3 times fewer steps without loss on
code and math [paper].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.step import scores
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.schedule import Value, current, extremes
from dllm.step.state import SamplerState
from samplers.parts.checks import not_below


@dataclass(frozen=True, kw_only=True)
class EBSampler(Sampler):
    gamma: Value
    """Entropy budget of a step in nats (>= 0); 0 = one token per step."""
    order: Literal["entropy", "confidence", "margin"]
    """Error proxy that ranks the candidates."""
    bound: Literal["maximum", "preceding"]
    """What the sum leaves out: the prefix's largest entropy, or its last one."""

    def __post_init__(self) -> None:
        not_below("gamma", extremes(self.gamma)[0], 0)

    def score(self, view: View, tokens: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        if self.order == "confidence":
            return super().score(view, tokens)
        if self.order == "margin":
            return view.summary(self.conf_dtype).margin
        return -scores.entropy(view.logits, self.conf_dtype)

    def choose(
        self, score: Float[Tensor, "batch rows"], view: View, state: SamplerState
    ) -> Bool[Tensor, "batch rows"]:
        if score.shape[1] == 0:
            return view.candidates
        h = -score if self.order == "entropy" else view.summary(self.conf_dtype).entropy
        order = scores.rank_order(score.masked_fill(~view.candidates, -torch.inf))
        ranked = h.gather(1, order)
        left_out = ranked.cummax(dim=1).values if self.bound == "maximum" else ranked
        within = ranked.cumsum(dim=1) - left_out <= current(self.gamma, view, score)
        within[:, 0] = True
        # The bound grows with the prefix, so the longest one is where it first fails.
        prefix = within.cummin(dim=1).values
        return torch.zeros_like(prefix).scatter_(1, order, prefix) & view.candidates
