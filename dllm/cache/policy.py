"""What a cache policy is: it turns a sampler's request into forwards over explicit rows."""

from typing import ClassVar, Protocol

from dllm.forward.store import KVStore
from dllm.models.spec import AttentionKind, ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import Need, Plan, Request


class CachePolicy(Protocol):
    """Plans forwards; knows no sampler."""

    stores: ClassVar[bool]
    """Whether the policy keeps keys and values between forwards."""
    attention: ClassVar[frozenset[AttentionKind]]
    """Attention kinds under which the policy is meaningful."""

    def supplies(self, spec: ModelSpec) -> frozenset[Need]:
        """Which of the logits and alternative canvases that a rule may need its forwards give."""
        ...

    @property
    def audit(self) -> bool:
        """Whether every step is compared with a cache-free forward."""
        ...

    def begin(self, spec: ModelSpec) -> None:
        """Before the first forward of a run."""
        ...

    def plan(self, canvas: Canvas, request: Request, store: KVStore | None) -> list[Plan]:
        """Forwards of this step in order; the last one predicts the request's positions."""
        ...

    def block_end(self, canvas: Canvas, rows: list[int], store: KVStore | None) -> list[Plan]:
        """Forwards due because these rows have just completed their block; they predict nothing."""
        ...
