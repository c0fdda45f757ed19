"""What recorded fields say, read from our traces: shared by several methods."""

from collections.abc import Callable

from dllm.step.trace import Step, Trace


def marked(name: str) -> Callable[[Trace], list[list[int]]]:
    """Marked positions per forward."""
    return lambda trace: [step.marks.get(name, []) for step in trace.steps]


def counted(name: str) -> Callable[[Trace], list[int]]:
    """Number of marked positions per forward."""
    return lambda trace: [len(step.marks.get(name, [])) for step in trace.steps]


def steps_with(name: str) -> Callable[[Trace], list[int]]:
    """Forwards with at least one marked position."""
    return lambda trace: [number for number, step in enumerate(trace.steps) if name in step.marks]


def fed(trace: Trace) -> list[int]:
    """Rows fed per forward."""
    return [step.fed for step in trace.steps]


def positions(step: Step) -> list[int]:
    """Positions that a forward fed, counted from the start of the answer."""
    return [position for first, last in step.spans for position in range(first, last)]


def lengths(trace: Trace) -> list[int]:
    """Length of the answer after each forward."""
    return [len(canvas) for canvas in trace.replay()]
