"""What decoding one sequence leaves behind, and the counts every metric starts from."""

from collections import Counter
from dataclasses import dataclass, field, fields

from dllm.step.plan import MODEL, ForwardKind
from dllm.step.trace import Trace


@dataclass
class Cost:
    """Work spent on one sequence."""

    forwards: Counter[ForwardKind] = field(default_factory=Counter)
    """Model calls in which the sequence took part, by kind."""
    other_forwards: Counter[tuple[str, ForwardKind]] = field(default_factory=Counter)
    """Calls of the session's other models, by name and kind; no part of `nfe`."""
    aux_forwards: int = 0
    """Canvases evaluated in those calls beyond the first of each (guidance, drafts)."""
    rows: int = 0
    """Query positions computed, over all calls, models and branches."""
    enfe: float = 0.0
    """The same in whole canvases: each call's over the sequence's length at that call."""
    steps: int = 0
    """Decisions taken."""
    seconds: float = 0.0
    """Wall time, each step's time shared evenly by the sequences in the batch."""
    model_seconds: float = 0.0
    """Part of `seconds` spent inside the model's forward."""
    attended: int = 0
    """Stored slots attended, over all forwards."""
    stale: int = 0
    """Those computed from a token that has changed since."""
    audited: int = 0
    """Decisions compared with the cache-free forward's (`cache.audit`)."""
    audit_kl: float = 0.0
    """Sum over them of the mean divergence from the cache-free prediction, in nats."""
    audit_changed: int = 0
    """Those that would have been others."""
    checks: int = 0
    """Single checks of the constraint."""
    lookaheads: int = 0
    """Those that only tried likely fillings."""
    rejections: int = 0
    """Proposed tokens and changes that it refused."""
    replacements: int = 0
    """Decisions that it replaced by its own."""
    timeouts: int = 0
    """Checks that ran out of time."""
    constraint_seconds: float = 0.0
    """Part of `seconds` spent in the constraint's reviews."""

    def __add__(self, other: "Cost") -> "Cost":
        names = [f.name for f in fields(self)]
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def count(self, model: str, kind: ForwardKind) -> None:
        """One more call of a model."""
        if model == MODEL:
            self.forwards[kind] += 1
        else:
            self.other_forwards[model, kind] += 1

    @property
    def nfe(self) -> int:
        return sum(self.forwards.values())


@dataclass(frozen=True)
class Outcome:
    """One decoded sequence."""

    sample_id: str
    prompt_length: int
    tokens: tuple[int, ...]
    """Generation region, end tokens and any leftover mask included."""
    committed: int
    """Positions committed by decisions, net of remasks (not those filled after the end)."""
    cost: Cost
    latency: float
    """Seconds from entering the batch to leaving it."""
    failure: str | None = None
    """Why the sequence was given up; None = decoded."""
    truncated: bool = False
    """The canvas could not grow further; the answer so far is kept."""
    completion: str | None = None
    """The answer as the constraint would complete it; None = it offers none."""
    trace: Trace | None = None
    earlier: "Outcome | None" = None
    """The generation that this one continues (a thinking phase); `cost`, `committed` and `latency`
    are sums over both, the other fields belong to the last one."""

    def phases(self) -> "list[Outcome]":
        """The generations of this sample in order."""
        return [*(self.earlier.phases() if self.earlier is not None else ()), self]
