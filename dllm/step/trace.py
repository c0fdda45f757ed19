"""What was decided when: one compact record per forward, from which the canvas can be rebuilt.

Positions count from the start of the generation region. A trace of a 256-token answer takes a few
kilobytes of JSON; `replay` rebuilds every intermediate canvas exactly.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from dllm.step.plan import ForwardKind


@dataclass
class Review:
    """What a constraint said to one step."""

    checks: int = 0
    lookaheads: int = 0
    timeouts: int = 0
    seconds: float = 0.0
    refused: list[tuple[int, int]] = field(default_factory=list)
    """(position, token) of the proposals that were refused, in this order."""
    left_out: list[str] = field(default_factory=list)
    """Kinds of change that were refused."""
    rewritten: bool = False
    """What was written is the constraint's own choice."""


@dataclass
class Considered:
    """What a decision had before it."""

    alternatives: list[tuple[int, list[int], list[float]]] = field(default_factory=list)
    """(position, its most probable tokens, their raw softmax probabilities), most probable
    first."""
    branches: list[list[tuple[int, int]]] = field(default_factory=list)
    """(position, token) of what each branch held besides the canvas."""
    adopted: int | None = None
    """Branch whose keys and values were kept; None = there were none."""


@dataclass
class Step:
    """One forward of one sequence and what was decided after it."""

    kind: ForwardKind
    fed: int
    """Rows computed for this sequence."""
    block: int
    """Index of the block."""
    model: str | None = None
    """Name of the model, where it is another one than the canvas's."""
    opened: tuple[int, int] | None = None
    """[start, end) of the block that began with this step; an aligned one may start below 0."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Half-open spans of the fed positions, prompt negative; empty where the whole canvas was
    fed."""
    positions: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """Of the committed tokens, in the order of `positions`."""
    probabilities: list[float | None] = field(default_factory=list)
    """Of the committed tokens: the model's raw softmax probability (float32) in the forward that
    committed them; None where no forward of the step predicted it."""
    forced: bool = False
    """The progress guard committed: the rule chose nothing."""
    seconds: float | None = field(default=None, compare=False)
    """Time from the sequence's entry to this decision."""
    remasked: list[int] = field(default_factory=list)
    edits: list[tuple[int, int]] = field(default_factory=list)
    """(position, new token) of overwritten tokens."""
    fill: tuple[int, int] | None = None
    """(from position, token): the rest of the canvas was set to an end token after this step."""
    length: int | None = None
    """New length of the generation region, where it changed."""
    inserted: list[tuple[int, int]] = field(default_factory=list)
    """(position, masks put after it), from right to left; the canvas grew by them."""
    marks: dict[str, list[int]] = field(default_factory=dict)
    """Named positions that explain the decision (a sampler's anchors, ready rows)."""
    tried: list[tuple[int, float]] = field(default_factory=list)
    """(token, what it was compared by) of every branch that tried one, the first choice first."""
    review: Review | None = None
    """None = no constraint was asked."""
    considered: Considered | None = None
    """None = not asked for."""

    @property
    def more(self) -> int:
        """Masks that were put in."""
        return sum(count for _, count in self.inserted)

    def contradiction(self, size: int) -> str | None:
        """What can't be in a canvas of this many positions; None if all can."""
        written = {"positions": self.positions, "remasked": self.remasked}
        written["edits"] = [position for position, _ in self.edits]
        for name, positions in written.items():
            if not _whole(positions, size):
                return f"{name}={positions} are no positions below {size}"
        if not _whole(self.tokens) or not _whole([token for _, token in self.edits]):
            return "tokens or edits hold what is no token"
        if not _whole([self.fed, self.block]):
            return f"fed={self.fed!r} or block={self.block!r} is no count"
        for name in ("tokens", "scores", "probabilities"):
            values = getattr(self, name)
            if len(values) != len(self.positions) and (values or name == "tokens"):
                return f"{name} has {len(values)} entries for {len(self.positions)} positions"
        if not _probable([p for p in self.probabilities if p is not None]):
            return f"probabilities={self.probabilities} are not all in [0, 1]"
        if self.opened is not None and not (
            len(self.opened) == 2 and all(type(end) is int for end in self.opened)
        ):
            return f"opened={self.opened} is no span"
        if any(
            not _whole([count]) or not _whole([at + 1], size + 1) for at, count in self.inserted
        ):
            return f"inserted={self.inserted} is not within {size} positions"
        if self.length is not None and not _whole([self.length]):
            return f"length={self.length!r} is no length"
        if self.fill is not None and not (len(self.fill) == 2 and _whole(self.fill)):
            return f"fill={self.fill} is no position and token"
        return None

    def cut(self, length: int) -> None:
        """Notes that the sequence was shortened right after this step; commits beyond are
        dropped."""
        kept = [i for i, position in enumerate(self.positions) if position < length]
        self.positions = [self.positions[i] for i in kept]
        self.tokens = [self.tokens[i] for i in kept]
        self.scores = [self.scores[i] for i in kept]
        self.probabilities = [self.probabilities[i] for i in kept if self.probabilities]
        self.length = length


@dataclass
class Trace:
    """All steps of one sequence."""

    sample_id: str
    gen_length: int
    mask_id: int
    steps: list[Step] = field(default_factory=list)
    sequential: list[float] | None = None
    """Of every committed token, in the order of the steps: its raw probability where the tokens of
    the path are revealed one at a time (`score_sequential`); None = not asked for, or the path has
    revised what it committed."""
    given: list[int] = field(default_factory=list)
    """The generation region at the start; empty = masks only."""
    alternatives: int = 0
    """Most probable tokens kept per predicted position; 0 = the decisions only."""

    def commits(self) -> list[list[tuple[int, int]]]:
        """Per forward, (position, token) of everything that was written, remasks as the mask id."""
        return [
            [
                *zip(step.positions, step.tokens, strict=True),
                *step.edits,
                *((p, self.mask_id) for p in step.remasked),
            ]
            for step in self.steps
        ]

    def replay(self) -> Iterator[np.ndarray]:
        """The generation region after each forward, int64 [length]; length changes where it did."""
        canvas = np.full(self.gen_length, self.mask_id, dtype=np.int64)
        canvas[: len(self.given)] = self.given
        for step in self.steps:
            canvas = canvas.copy()
            canvas[step.positions] = step.tokens
            for position, token in step.edits:
                canvas[position] = token
            canvas[step.remasked] = self.mask_id
            for position, count in step.inserted:
                canvas = np.insert(canvas, position + 1, [self.mask_id] * count)
            if step.length is not None:
                grown = np.full(step.length, self.mask_id, dtype=np.int64)
                shared = min(step.length, canvas.size)
                grown[:shared] = canvas[:shared]
                canvas = grown
            if step.fill is not None:
                canvas[step.fill[0] :] = step.fill[1]
            yield canvas

    def contradiction(self) -> str | None:
        """What can't be of a trace that was read from a file; None if all can."""
        size = self.gen_length
        # A model without a mask token has a negative id of one.
        if not _whole([size]) or type(self.mask_id) is not int or type(self.sample_id) is not str:
            return "sample_id, gen_length or mask_id is no such thing"
        if not all(type(token) is int for token in self.given) or len(self.given) > size:
            return f"given is no list of at most {size} tokens"
        if not (self.sequential is None or _probable(self.sequential)):
            return "sequential holds what is no probability"
        for number, step in enumerate(self.steps, start=1):
            if wrong := step.contradiction(size):
                return f"step {number}: {wrong}"
            size = step.length if step.length is not None else size + step.more
        committed = sum(len(step.positions) for step in self.steps)
        if self.sequential is not None and len(self.sequential) != committed:
            return f"sequential has {len(self.sequential)} entries for {committed} commits"
        return None

    def to_json(self) -> dict[str, Any]:
        """Compact form: fields at their default are left out."""
        steps = [
            {k: v for k, v in asdict(step).items() if v is not False and v not in ([], {}, None)}
            for step in self.steps
        ]
        whole = {
            "sample_id": self.sample_id,
            "gen_length": self.gen_length,
            "mask_id": self.mask_id,
            "steps": steps,
            **({"alternatives": self.alternatives} if self.alternatives else {}),
        }
        if self.given:
            whole["given"] = self.given
        return whole if self.sequential is None else {**whole, "sequential": self.sequential}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Trace":
        steps = []
        for raw in data["steps"]:
            raw = dict(raw, kind=ForwardKind(raw["kind"]))
            for name in ("edits", "inserted", "tried"):
                raw[name] = [tuple(pair) for pair in raw.get(name, ())]
            raw["spans"] = [tuple(span) for span in raw.get("spans", ())]
            raw["opened"] = tuple(raw["opened"]) if "opened" in raw else None
            raw["fill"] = tuple(raw["fill"]) if "fill" in raw else None
            if "review" in raw:
                refused = [tuple(pair) for pair in raw["review"]["refused"]]
                raw["review"] = Review(**{**raw["review"], "refused": refused})
            if "considered" in raw:
                raw["considered"] = _considered(raw["considered"])
            steps.append(Step(**raw))
        size, mask, given = data["gen_length"], data["mask_id"], data.get("given", [])
        sequential, alternatives = data.get("sequential"), data.get("alternatives", 0)
        return cls(data["sample_id"], size, mask, steps, sequential, given, alternatives)


def _considered(raw: dict[str, Any]) -> Considered:
    return Considered(
        [(position, tokens, likely) for position, tokens, likely in raw["alternatives"]],
        [[(position, token) for position, token in branch] for branch in raw["branches"]],
        raw["adopted"],
    )


def _whole(values: Iterable[Any], below: float = inf) -> bool:
    """Whether all are whole numbers in [0, below)."""
    return all(type(value) is int and 0 <= value < below for value in values)


def _probable(values: Iterable[Any]) -> bool:
    """Whether all are in [0, 1], within the rounding of float32; NaN is not."""
    return all(type(value) in (int, float) and 0 <= value <= 1 + 1e-6 for value in values)


def pack_traces(traces: Iterable[Trace]) -> bytes:
    """One complete gzip member of JSON lines, to be appended to a file of such members."""
    lines = (json.dumps(trace.to_json(), separators=(",", ":")) + "\n" for trace in traces)
    return gzip.compress("".join(lines).encode(), mtime=0)


def read_traces(path: Path) -> Iterator[Trace]:
    """The traces of all complete members; one cut off by a kill does not count, nor what lies
    behind damage."""
    return (trace for trace in parsed_traces(path) if isinstance(trace, Trace))


def parsed_traces(path: Path) -> Iterator[Trace | str]:
    """As `read_traces`; what is wrong with the rest of a file comes last."""
    block, number = b"", 1
    with open(path, "rb") as file:
        while block := block or file.read(1 << 16):
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            text = b""
            while not member.eof:
                block = block or file.read(1 << 16)
                if not block:
                    yield f"trace {number} is cut off"
                    return
                try:
                    text += member.decompress(block)
                except zlib.error:
                    yield f"trace {number} is not compressed as a trace is"
                    return
                block = member.unused_data
            for line in text.splitlines():
                try:
                    trace = Trace.from_json(json.loads(line))
                    wrong = trace.contradiction()
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    wrong = "fields that a trace does not have, or lacks"
                if wrong:
                    yield f"trace {number}: {wrong}"
                    return
                yield trace
                number += 1
