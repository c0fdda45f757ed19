"""DEER: Draft with Diffusion, Verify with Autoregressive Models (arXiv 2512.15176).

One forward of the diffusion model drafts the next `draft_length` tokens, each from its own marginal
q_i given what is committed; one forward of an autoregressive model gives p_i of the same positions.
Draft i is accepted with probability min(1, p_i / q_i); the first that is not is replaced by a token
of norm(max(0, p_i - q_i)) (Eq. 5-6). Greedy proposals are the limit: accepted while equal to the
verifier's first choice. What comes out is distributed as the verifier's own decoding with the same
proposer, whatever the drafter is; a drafter's cache may be inexact. Under a constraint p_i is of
the tokens that it lets stand behind the drafts before.

The paper's Algorithm 1 goes on behind a rejection (`on_reject: continue`), which is exact because
q_i does not depend on the drafts before it, and costs one more verification each time. Read to the
letter it draws the replacement from p, and the project page asks the drafter again on the growing
prefix: neither is lossless, neither is offered. `bonus`, the verifier's token behind a block that
was accepted whole, is not in the paper [inferred].

No code of the authors was found. Their drafter is trained to read prefix + masks + [SEP]; whether
[SEP] stands there in decoding, too, is not stated. Here a drafter that knows the separator reads it
behind the masks of the draft, up to the end of the region [inferred]; any other reads the masks of
the whole region. The drafter's forwards are the NFE, the verifier's are counted beside them.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer
from dllm.step import scores
from dllm.step.canvas import Canvas
from dllm.step.decision import Decision, HostDecision
from dllm.step.plan import Request, pad_positions
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState, StateField
from samplers.parts.checks import not_below
from samplers.parts.speculation import allowed, check_proposer, drawn, verified


SEPARATOR = "<|sep|>"
"""What `python -m scripts.train drafter` teaches a drafter to read."""


@dataclass(frozen=True, kw_only=True)
class Deer(Sampler):
    verifier: str
    """Model configuration, or checkpoint folder, of the autoregressive model."""
    draft_length: int
    """Tokens drafted by one forward (>= 1)."""
    draft: Literal["sample", "argmax"]
    """Drafts are drawn by the proposer, or the drafter's first choice (q is one-hot then)."""
    on_reject: Literal["break", "continue"]
    """Behind a rejected draft the others are dropped, or verified by another forward: the sequences
    of a batch then draft at different times, and those that have drafts left feed nothing."""
    bonus: bool
    """One more token of the verifier behind a draft that was accepted whole."""
    separator: str | int | None
    """Token that the drafter reads behind the masks of a draft, never drafted itself; None =
    nothing, and so is `SEPARATOR` for a drafter that was not trained to read it."""

    conf_dtype: scores.ConfDtype = field(init=False, default="float64")

    models: ClassVar[frozenset[str]] = frozenset({"verifier"})
    plans_commits: ClassVar[bool] = True
    fresh_draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_below("draft_length", self.draft_length, 1)
        check_proposer(self.proposer)
        if self.logits_transform is not None:
            raise ConfigError(
                f"sampler.logits_transform={type(self.logits_transform).__name__} would be read "
                "from two models: use null"
            )
        if isinstance(self.separator, int) or self.on_reject == "continue":
            object.__setattr__(self, "needs", self.needs | {"hypotheses"})

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        rule = super().with_tokenizer(tokenizer)
        vocabulary = tokenizer.base.get_vocab()
        token = (
            vocabulary.get(self.separator) if isinstance(self.separator, str) else self.separator
        )
        if isinstance(self.separator, str) and token is None and self.separator != SEPARATOR:
            raise ConfigError(
                f"sampler.separator={self.separator!r} is no token of this tokenizer: use one of "
                "its special tokens (a text or a number), or null"
            )
        special = tokenizer.special_ids
        if special and token in vocabulary.values() and token not in special:
            raise ConfigError(
                f"sampler.separator={self.separator!r} is an ordinary token, which no draft could "
                "hold any more: use a special token (a text or a number), or null"
            )
        return replace(rule, separator=token)

    def fields(self) -> tuple[StateField, ...]:
        return (
            StateField("draft", ("canvas",), torch.int64, fill=-1),
            # Row of `q` that the draft at a position was drawn from.
            StateField("rank", ("canvas",), torch.int64),
            # [batch, longest draft, vocab] from the first draft on.
            StateField("q", (0, 0), torch.float64),
            StateField("drafted", (), torch.bool),
        )

    def commits_ahead(self) -> bool:
        return False

    def check_model(self, spec: ModelSpec) -> None:
        super().check_model(spec)
        if isinstance(self.separator, int):
            known = range(spec.vocab_size)
            if self.separator not in known or self.separator in (spec.mask_id, *spec.eos_ids):
                raise ConfigError(
                    f"sampler.separator={self.separator} must be one of the model's "
                    f"{spec.vocab_size} tokens, and neither its mask nor an end token"
                )

    def check_other(self, name: str, other: ModelSpec, own: ModelSpec) -> None:
        if not other.autoregressive:
            raise ConfigError(
                f"sampler.{name}={self.verifier} must predict the next token under causal "
                f"attention; its attention is {other.attention} with a shift of "
                f"{other.logit_shift} (a causal model reads as one with logit_shift=1)"
            )

    def plan(
        self, canvas: Canvas, eligible: Bool[np.ndarray, "batch canvas"], state: SamplerState
    ) -> Request:
        drafted = state["drafted"].cpu().numpy()
        rank = eligible.cumsum(axis=1)
        lacking = eligible & (rank <= self.draft_length) & ~drafted[:, None]
        if lacking.any():
            return Request(pad_positions(lacking), self._drafting(canvas, lacking), decides=False)
        draft = state["draft"].cpu().numpy()
        # Drafts up to the first open position without one, and that position.
        open_before = (eligible & (draft < 0)).cumsum(axis=1)
        pending = eligible & (open_before == 0)
        following = eligible & (draft < 0) & (open_before == 1)
        if not self.bonus:
            following &= ~pending.any(axis=1, keepdims=True)
        branch = np.where(pending, draft, canvas.tokens)[:, None]
        return Request(pad_positions(pending | following), branch, model="verifier")

    def _drafting(
        self, canvas: Canvas, lacking: Bool[np.ndarray, "batch canvas"]
    ) -> Int[np.ndarray, "batch 1 canvas"] | None:
        """What the drafter reads, of the sequences that lack drafts; None = their canvases."""
        asks = lacking.any(axis=1, keepdims=True)
        if not isinstance(self.separator, int) and asks.all():
            return None
        read = canvas.tokens
        if isinstance(self.separator, int):
            behind = canvas.masked() & ~lacking & (lacking.cumsum(axis=1) > 0)
            read = np.where(behind, self.separator, read)
        return np.where(asks, read, -1)[:, None]

    def observe(self, view: View, state: SamplerState) -> None:
        if not self._drafts(view):
            return
        q = self._probabilities(view, view.logits.clone(), self.separator)
        tokens = q.argmax(dim=-1)
        if self.draft == "argmax":
            q = F.one_hot(tokens, q.shape[-1]).double()
        else:
            tokens = drawn(q, view.uniform())
        # Every sequence that was asked for drafts drops those that it had.
        asks = (view.positions >= 0).any(dim=1, keepdim=True)
        tokens = tokens.where(view.candidates, -1)
        state["draft"] = view.on_canvas(tokens, state["draft"].masked_fill(asks, -1))
        number = torch.arange(tokens.shape[1], device=view.device).expand_as(tokens)
        state["rank"] = view.on_canvas(number, state["rank"])
        earlier = state["q"]
        if earlier.shape[2]:
            # Drafts that are kept may be longer, or shorter, than the new ones.
            longest = max(q.shape[1], earlier.shape[1])
            q, earlier = (F.pad(one, (0, 0, 0, longest - one.shape[1])) for one in (q, earlier))
            q = q.where(asks[..., None], earlier)
        state["q"] = q
        state["drafted"] = state["drafted"] | asks[:, 0]

    def select(self, view: View, state: SamplerState) -> Decision:
        at = view.positions.clamp(min=0)
        draft = state["draft"].gather(1, at).where(view.positions >= 0, -1)
        rank = state["rank"].gather(1, at)[..., None].expand(-1, -1, state["q"].shape[2])
        p = self._probabilities(view, allowed(view, draft))
        # The row behind the drafts has none: q = 0.
        q = state["q"].gather(1, rank) * (draft >= 0)[..., None]
        return verified(view, p, q, draft)

    def _drafts(self, view: View) -> bool:
        """Whether the drafter has predicted: it was asked for masks only."""
        if view.branches is None:
            return True
        read = view.branches[:, 0].gather(1, view.positions.clamp(min=0))
        return bool(((read == view.canvas.mask_id) | (view.positions < 0)).all())

    def _probabilities(
        self,
        view: View,
        logits: Float[Tensor, "batch rows vocab"],
        separator: str | int | None = None,
    ) -> Float[Tensor, "batch rows vocab"]:
        """What the proposer would draw from, of either model; writes into `logits`. A mask is no
        token of an answer; a separator may be one of the verifier's: only drafts are without it."""
        if view.canvas.mask_id >= 0:
            logits[..., view.canvas.mask_id] = -torch.inf
        if isinstance(separator, int):
            logits[..., separator] = -torch.inf
        return self.proposer.distribution(logits)  # type: ignore[attr-defined]

    def committed(self, canvas: Canvas, decision: HostDecision, state: SamplerState) -> None:
        left = torch.zeros_like(state["draft"], dtype=torch.bool)
        if self.on_reject == "continue":
            left = (state["draft"] >= 0) & torch.from_numpy(canvas.masked()).to(left.device)
        state["drafted"] = left.any(dim=1)
