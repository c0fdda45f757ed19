"""How many schemas of a folder the constraint can work with, and whether an answer under each
validates.

Every schema is compiled for a model's vocabulary and, if that succeeds, decoded once, with as few
of `LENGTHS` tokens as its shortest answer has room in. What is found out is kept, schema by schema,
so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import wrap

import pandas as pd

from dllm.config import compose
from dllm.constraints.constraint import BoundGrammar, JsonSchemaConstraint
from dllm.engine.loop import Decoder
from dllm.engine.session import Session
from dllm.errors import ConfigError, RunError
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import fitting
from dllm.runs.parts import build_parts
from dllm.step.canvas import Prompt


LENGTHS = (64, 128, 256)
"""Tokens of an answer."""
DECODE_SECONDS = 20.0
"""Processor time after which an answer is given up."""
OUTCOMES = {
    "valid": "compiled, and the answer validates",
    "too short": f"compiled, but no answer fits into {LENGTHS[-1]} tokens",
    "gave up": "compiled, but the answer was not finished in time or the constraint gave up",
    "invalid": "compiled, but the judge refuses the answer or can't read the schema",
    "refused": "not compiled: the schema says what can't be followed",
    "timed out": "not compiled in time",
}


@dataclass(frozen=True)
class Finding:
    schema: str
    """Folder and file."""
    outcome: str
    """One of `OUTCOMES`."""
    reason: str
    compile_seconds: float
    """Of processor time, as `decode_seconds`: what else the machine does changes no outcome."""
    tokens: int
    """Length of the canvas; 0 = none was decoded."""
    checks: int
    decode_seconds: float

    @property
    def compiled(self) -> bool:
        return self.outcome not in ("refused", "timed out")


class Examiner:
    """A model under `constraint=json_schema` with its defaults."""

    def __init__(self, options: Iterable[str]) -> None:
        quiet = ("tracker=none", "progress=false", "constraint=json_schema", "batch_size=1")
        self.config = compose([*quiet, f"gen_length={LENGTHS[0]}", *options])
        self.parts = build_parts(self.config)
        self.checkpoint = Checkpoint(self.parts.model)
        self.sampler = fitting(self.config, self.parts, self.checkpoint)
        assert isinstance(self.parts.constraint, JsonSchemaConstraint)
        self.constraint = self.parts.constraint

    def finding(self, name: str, text: str) -> Finding:
        found = Finding(name, "too short", "", 0.0, 0, 0, 0.0)
        bound = self.constraint.bind(self.checkpoint.tokenizer, self.checkpoint.spec)
        started = time.thread_time()
        for length in LENGTHS:
            prompt = Prompt(name, self._question(), length, schema=text)
            try:
                bound.check(prompt)
            except ConfigError as error:
                found = replace(
                    found, reason=str(error), compile_seconds=time.thread_time() - started
                )
                if " is too short for " in found.reason:
                    continue
                late = "constraint.compile_timeout" in found.reason
                return replace(found, outcome="timed out" if late else "refused")
            found = replace(found, compile_seconds=time.thread_time() - started, tokens=length)
            return self._decoded(found, bound, prompt)
        return found

    def _decoded(self, found: Finding, bound: BoundGrammar, prompt: Prompt) -> Finding:
        decoder = Decoder(
            self.checkpoint.predictor, self.sampler, self.parts.cache, self.parts.eos, bound
        )
        session, started = Session(decoder), time.thread_time()
        session.submit(prompt)
        outcome, reason = "valid", ""
        checks = 0
        try:
            while session.busy:
                for _, result in session.step().finished:
                    checks = result.cost.checks
                    if result.failure is not None:
                        outcome, reason = "gave up", str(result.failure)
                if time.thread_time() - started > DECODE_SECONDS:
                    outcome, reason = "gave up", f"after {DECODE_SECONDS:g} seconds"
                    break
        except RunError as error:
            outcome, reason = "invalid", str(error)
        seconds = time.thread_time() - started
        return replace(found, outcome=outcome, reason=reason, checks=checks, decode_seconds=seconds)

    def _question(self) -> tuple[int, ...]:
        return tuple(self.checkpoint.tokenizer.encode("json"))


def examine(folder: Path, options: list[str], kept: Path, seconds: float) -> list[Finding]:
    """What is known about all schemas below a folder, once so many seconds have been spent on those
    that nothing was known about.

    Raises `ConfigError` for a folder without schemas.
    """
    files = in_turn(folder)
    if not files:
        raise ConfigError(f"{folder} holds no .json file")
    known = {one.schema: one for one in _kept(kept)}
    examiner, end = Examiner(options), time.monotonic() + seconds
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a") as log:
        for file in files:
            name = str(file.relative_to(folder))
            if name in known or time.monotonic() > end:
                continue
            # What is no UTF-8 is no JSON either, which the constraint says.
            known[name] = examiner.finding(name, file.read_text(errors="surrogateescape"))
            log.write(json.dumps(asdict(known[name])) + "\n")
            log.flush()
            print(f"{name}: {known[name].outcome} {known[name].reason}", file=sys.stderr)
    left = len(files) - len(known)
    if left:
        print(f"{left} of {len(files)} schemas are left: the same command goes on", flush=True)
    return [known[name] for file in files if (name := str(file.relative_to(folder))) in known]


def _kept(path: Path) -> Iterator[Finding]:
    """What an earlier command has found out; of a line that a kill cut off nothing is left."""
    if not path.is_file():
        return
    *lines, _ = path.read_text().split("\n")
    path.write_text("".join(f"{line}\n" for line in lines))
    try:
        yield from (Finding(**json.loads(line)) for line in lines)
    except (ValueError, TypeError):
        raise ConfigError(f"{path} holds a line that is no finding: remove it") from None


def in_turn(folder: Path) -> list[Path]:
    """The first schema of every set by name, then the second of each: what is examined first is no
    set alone."""
    turns = Counter[Path]()
    ranked = []
    for file in sorted(folder.glob("**/*.json")):
        ranked.append((turns[file.parent], file))
        turns[file.parent] += 1
    return [file for _, file in sorted(ranked)]


def page(found: list[Finding], total: int, command: str) -> str:
    """Markdown; `total` schemas were there."""
    return "\n".join([*_lines(found, total, command), ""])


def _lines(found: list[Finding], total: int, command: str) -> Iterator[str]:
    counts = Counter(one.outcome for one in found)
    compiled = sum(one.compiled for one in found)
    times = sorted(one.compile_seconds for one in found if one.compiled)
    yield from ("# Schemas that a constraint can follow", "", f"`{command}`", "")
    chosen = "" if len(found) == total else ", as many as there was time for"
    lengths = ", ".join(map(str, LENGTHS))
    share = f"{compiled} compile ({compiled / len(found):.1%})"
    if times:
        share += (
            f", half of them within {times[len(times) // 2]:.2f} and the slowest within "
            f"{times[-1]:.1f} seconds of processor time"
        )
    text = (
        f"{len(found)} of {total} schemas of JSONSchemaBench (arXiv 2501.10868){chosen}, each "
        "compiled for the "
        f"model's vocabulary and then decoded once, with the first of {lengths} tokens that the "
        f"shortest answer fits into; jsonschema judges the answer. {share}. A refusal is one line "
        "before any forward."
    )
    yield from (*wrap(text, 100), "")
    table = [
        {"outcome": name, "schemas": counts[name], "meaning": meaning}
        for name, meaning in OUTCOMES.items()
    ]
    yield pd.DataFrame(table).to_markdown(index=False)
    sets = sorted({Path(one.schema).parts[0] for one in found})
    table = [
        {
            "set": name,
            "schemas": len(own := [o for o in found if Path(o.schema).parts[0] == name]),
            "compiled": sum(o.compiled for o in own),
            "valid": sum(o.outcome == "valid" for o in own),
        }
        for name in sets
    ]
    yield from ("", pd.DataFrame(table).to_markdown(index=False), "", "## Why not", "")
    for one in found:
        if one.outcome not in ("valid", "too short"):
            reason = one.reason.replace(f"constraint.schema=null (sample {one.schema})", "")
            reason = reason.removeprefix(": ").strip().replace("|", "\\|")
            yield f"- {one.schema}: {one.outcome}: {reason}"
