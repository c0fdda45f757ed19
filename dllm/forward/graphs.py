"""Forwards of one shape recorded once and replayed: a GPU is then told what to compute in one call,
where an eager forward of few rows mostly waits for the next of its thousand operations.

What is replayed are the eager operations, but for norms, rotation and gates (see
`dllm.models.fused`): the order of a norm's sum may change its last bit.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dllm.models.fused import recorded


Compute = Callable[[Sequence[Tensor]], Tensor]
WORTH = 3
"""Eager forwards of a shape after which it is recorded: recording takes about as long as they."""
KEPT = 64
"""Shapes that stay recorded, the latest used ones."""


class Graphs:
    """Recorded forwards by what they depend on besides the values of their inputs."""

    def __init__(self) -> None:
        self._recorded: OrderedDict[Hashable, Callable[[Sequence[Tensor]], Tensor]] = OrderedDict()
        self._met: OrderedDict[Hashable, int] = OrderedDict()
        self._memory: Any = None
        """What the recorded forwards share: no two run at once, and what they return is copied
        before the next one."""

    def run(self, fixed: Hashable, inputs: Sequence[Tensor], compute: Compute) -> Tensor:
        """`compute(inputs)`, which reads nothing that may change besides `inputs` without `fixed`
        telling. The result is overwritten by the next call."""
        key = (fixed, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        # Streams and graphs are those of the device that is current.
        with torch.cuda.device_of(inputs[0]):
            return self._run(key, inputs, compute)

    def _run(self, key: Hashable, inputs: Sequence[Tensor], compute: Compute) -> Tensor:
        replay = self._recorded.get(key)
        if replay is not None:
            self._recorded.move_to_end(key)
            return replay(inputs)
        self._met[key] = met = self._met.pop(key, 0) + 1
        _shorten(self._met, 16 * KEPT)
        if met <= WORTH:
            return compute(inputs)
        del self._met[key]
        self._recorded[key] = replay = self._replayable(inputs, compute)
        _shorten(self._recorded, KEPT)
        return replay(inputs)

    def _replayable(
        self, inputs: Sequence[Tensor], compute: Compute
    ) -> Callable[[Sequence[Tensor]], Tensor]:
        own = [tensor.clone() for tensor in inputs]
        if self._memory is None:
            self._memory = Memory.new()
        with recorded():
            replay, result = record(lambda: compute(own), self._memory)

        def run(inputs: Sequence[Tensor]) -> Tensor:
            for mine, given in zip(own, inputs, strict=True):
                mine.copy_(given)
            replay()
            return result

        return run


@dataclass(frozen=True)
class Memory:
    """Where CUDA graphs compute: torch hands on memory within one pool and stream only."""

    pool: Any
    stream: Any

    @classmethod
    def new(cls) -> "Memory":
        return cls(torch.cuda.graph_pool_handle(), torch.cuda.Stream())


def record(compute: Callable[[], Tensor], memory: Memory) -> tuple[Callable[[], None], Tensor]:
    """A CUDA graph of one call, and where each replay leaves the result."""
    aside = memory.stream
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries prepare themselves at their first call
        compute()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    # Not torch.cuda.graph, which empties torch's memory and collects garbage before each one.
    with torch.cuda.stream(aside):
        graph.capture_begin(pool=memory.pool)
        try:
            result = compute()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(aside)
    return graph.replay, result


def _shorten(entries: OrderedDict[Hashable, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
