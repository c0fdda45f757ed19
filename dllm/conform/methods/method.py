"""How the cases of a recorded method are decoded here, and what else they record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from dllm.conform.methods.options import Overrides, Params
from dllm.step.plan import Plan
from dllm.step.trace import Trace


@dataclass(frozen=True)
class RecordedMethod:
    """One method of the trace files."""

    overrides: Overrides
    """The authors' parameters -> options of `scripts.run` (`eos=...` included)."""
    gen_length: Callable[[Params], int] = itemgetter("gen_length")
    """The authors' parameters -> masked positions at the start."""
    confidence: Callable[[float], float] | None = float
    """Our score of a committed position -> the recorded "confidence"; None = not comparable."""
    extras: Mapping[str, Callable[[Trace], object]] = field(default_factory=dict)
    """Further recorded fields -> the same value read from our trace."""
    planned: Mapping[str, Callable[[Sequence[Plan], int], object]] = field(default_factory=dict)
    """Further recorded fields -> the same value read from our forwards and the prompt's length."""
    steps: Callable[[Trace], list[list[tuple[int, int]]]] = Trace.commits
    """Our commits, grouped as the recorded "steps" are."""
    recorded_steps: Callable[[Params], Any] = itemgetter("steps")
    """A recorded case -> its steps as we count them."""
    reduced: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)
    """Recorded fields that hold more than ours does -> the part to compare."""
