"""Learned, redundancy-aware and lossless methods on the embedded tasks, beside the oracle.

Each cell is an ordinary run (same folder, same resume as `scripts.run`). What a method closes of
the gap is the share of the forwards between one token per step and the oracle that it saves; the
plain thresholds and the matched controls close it, too, and are what a method has to be compared
with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.metrics.statistics import mcnemar
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


TUNED = Path("results/training/tiny-llada-redundancy/model")
BASELINE, ORACLE = "one token per step", "oracle"
_EOTP = ["sampler=eotp", "sampler@sampler.base=learn2pd"]
_EOTP_CACHED = [*_EOTP, "sampler.zone=block", "sampler.base.conf_dtype=float64"]
_PLUS = ["sampler=freedave", "sampler@sampler.base=threshold"]
_TUNED = [f"model.path={TUNED}"]
_DUAL, _BF16 = ["cache=dual"], ["model.dtype=bfloat16"]
_STATIC = ["sampler=sdar", "sampler.mode=static"]
_DYNAMIC = ["sampler=sdar", "sampler.threshold=0.9"]
_DRAFTED = ["sampler=freedave", "sampler@sampler.base=sdar", "sampler.base.mode=static"]
_EAGER = [*_DRAFTED, "sampler.draft_steps=8", "sampler.eager=true"]


@dataclass(frozen=True)
class Chapter:
    """What is measured on one embedded model."""

    model: str
    run: Sequence[str]
    """Options of all its runs."""
    cases: Mapping[str, Sequence[str]]
    """Method -> options of `scripts.run`; `BASELINE` and `ORACLE` among them."""
    pairs: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    """Mode of FreeDave -> options of what it reproduces, and of itself."""
    beside: Mapping[str, str]
    """Method -> the simpler one next to it; the matched controls of filters are added."""


CHAPTERS = (
    Chapter(
        "tiny-llada",
        [],
        {
            BASELINE: ["sampler=low_confidence"],
            ORACLE: ["sampler=oracle"],
            "threshold 0.9": ["sampler=threshold"],
            "threshold 0.8": ["sampler=threshold", "sampler.threshold=0.8"],
            "threshold 0.6": ["sampler=threshold", "sampler.threshold=0.6"],
            "learn2pd 0.96": ["sampler=learn2pd"],
            "learn2pd 0.9": ["sampler=learn2pd", "sampler.accept_threshold=0.9"],
            "eotp alone": ["sampler=eotp"],
            "learn2pd + eotp": _EOTP,
            "learn2pd + eotp, prefix cache": [*_EOTP_CACHED, "cache=prefix"],
            "learn2pd + eotp, dual cache": [*_EOTP_CACHED, *_DUAL],
            "r2dllm": ["sampler=r2dllm"],
            "r2dllm, dual cache": ["sampler=r2dllm", *_DUAL],
            "freedave d=4": ["sampler=freedave"],
            "freedave d=8": ["sampler=freedave", "sampler.draft_steps=8"],
            "freedave d=4, dual cache": ["sampler=freedave", *_DUAL],
            "freedave++ d=4, exact": _PLUS,
            "freedave++ d=4, subset": [*_PLUS, "sampler.verify.match=subset"],
            "one token per step, tuned model": ["sampler=low_confidence", *_TUNED],
            "threshold 0.9, tuned model": ["sampler=threshold", *_TUNED],
            "r2dllm, tuned model": ["sampler=r2dllm", *_TUNED],
        },
        {
            "d=4": (["sampler=low_confidence"], ["sampler=freedave"]),
            "d=8": (["sampler=low_confidence"], ["sampler=freedave", "sampler.draft_steps=8"]),
            "d=4, dual cache": (
                ["sampler=low_confidence", *_DUAL],
                ["sampler=freedave", *_DUAL],
            ),
            "d=4, bfloat16": (
                ["sampler=low_confidence", *_BF16],
                ["sampler=freedave", *_BF16],
            ),
            "++ d=4, exact": (["sampler=threshold"], _PLUS),
            "++ d=4, subset": (
                ["sampler=threshold"],
                [*_PLUS, "sampler.verify.match=subset"],
            ),
        },
        {
            "eotp alone": BASELINE,
            "learn2pd + eotp": "learn2pd 0.96",
            "r2dllm": "threshold 0.9",
            "freedave d=4": BASELINE,
            "freedave++ d=4, exact": "threshold 0.9",
            "threshold 0.9, tuned model": "threshold 0.9",
            "r2dllm, tuned model": "threshold 0.9, tuned model",
        },
    ),
    Chapter(
        "tiny-sdar",
        ["model=tiny-sdar", "cache=block"],
        {
            BASELINE: _STATIC,
            ORACLE: ["sampler=oracle", "sampler/region=aligned"],
            "threshold 0.9": _DYNAMIC,
            "freedave d=4": _DRAFTED,
            "freedave d=8, eager": _EAGER,
            "freedave++ d=8, eager, exact": [
                *_EAGER,
                "sampler.base.mode=dynamic",
                "sampler.base.threshold=0.9",
            ],
        },
        {
            "d=4": (_STATIC, _DRAFTED),
            "d=8, eager": (_STATIC, _EAGER),
            "d=8, eager, bfloat16": ([*_STATIC, *_BF16], [*_EAGER, *_BF16]),
        },
        {"freedave d=8, eager": BASELINE, "freedave++ d=8, eager, exact": "threshold 0.9"},
    ),
)
PLAIN = ("threshold 0.9", "threshold 0.8", "threshold 0.6")
_RUN = ["task=embedded", "tracker=none", "progress=false", "trace=false"]


@dataclass(frozen=True)
class Row:
    """One method on all tasks together."""

    n: int
    accuracy: str
    nfe: float
    enfe: float
    """Rows computed, in whole canvases: what drafts cost."""
    tpf: float
    seconds: float
    """Per sample."""
    closed: float
    """Share of the forwards between baseline and oracle that are saved."""
    grades: Sequence[bool]
    """Sample by sample; none for a control."""


def learned(output: Path, limit: int) -> None:
    """Decodes what is missing and writes the page.

    Raises `ConfigError` while there is no tuned model.
    """
    if not TUNED.is_dir():
        raise ConfigError(f"{TUNED} does not exist: python -m scripts.train redundancy")
    lines = _head(limit)
    for chapter in CHAPTERS:
        found: dict[str, dict[str, Any]] = {}
        for name, options in chapter.cases.items():
            folder, found[name] = _run(chapter, options, limit)
            samples = sorted(RunFolder(folder).samples(), key=lambda sample: sample.id)
            found[name]["grades"] = [sample.correct for sample in samples]
            if "control" in found[name]:
                control = found[name]["control"]
                found[f"control of {name}: {control['label']}"] = control
            print(f"{chapter.model}: {name}: {found[name]['metrics']}", flush=True)
        same = {mode: _same(chapter, *pair, limit) for mode, pair in chapter.pairs.items()}
        lines += section(chapter, rows(found), same)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


def _run(chapter: Chapter, options: Sequence[str], limit: int) -> tuple[Path, dict[str, Any]]:
    config = compose([*_RUN, f"limit={limit}", *chapter.run, *options])
    return execute(config, options[0].removeprefix("sampler="))


def _same(
    chapter: Chapter, reference: Sequence[str], method: Sequence[str], limit: int
) -> tuple[int, int, int]:
    """Samples, those with equal tokens, and those with more forwards than the reference."""
    runs = []
    for options in (reference, method):
        folder, _ = _run(chapter, options, limit)
        runs.append({result.id: result for result in RunFolder(folder).samples()})
    static, drafted = runs
    equal = sum(drafted[name].tokens == result.tokens for name, result in static.items())
    more = sum(drafted[name].nfe > result.nfe for name, result in static.items())
    return len(static), equal, more


def rows(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    nfe = {name: summary["metrics"]["nfe"] for name, summary in summaries.items()}
    gap = nfe[BASELINE] - nfe[ORACLE]
    table = {}
    for name, summary in summaries.items():
        m = summary["metrics"]
        table[name] = Row(
            m["n"],
            f"{m['accuracy']:.3f} [{m['accuracy_low']:.3f}, {m['accuracy_high']:.3f}]",
            m["nfe"],
            m["enfe"],
            m["tpf"],
            m["effective"] / m["tokens_per_second"],
            (nfe[BASELINE] - nfe[name]) / gap if gap else 0.0,
            summary.get("grades", ()),
        )
    return table


def _against(name: str, other: str, table: Mapping[str, Row]) -> str:
    """One sentence: forwards and accuracy of a method and of what it is to be compared with."""
    ours, theirs = table[name], table[other]
    forwards = f"{theirs.nfe / ours.nfe:.2f} times fewer forwards than {other}"
    text = f"{name}: {forwards}; accuracy {ours.accuracy} against {theirs.accuracy}"
    if ours.grades and theirs.grades:
        text += f" (McNemar p {mcnemar(ours.grades, theirs.grades):.2g})"
    return f"{text}."


def _head(limit: int) -> list[str]:
    return [
        "# Learned, redundancy-aware and lossless methods on the embedded tasks",
        "",
        f"`python -m scripts.report embedded learned --limit {limit}`: all kinds of the embedded",
        "tasks in turn, float32 on the CPU, batch 8, gen_length 32, seed 0. Accuracy: exact match",
        "with a 95 % Wilson interval, NFE the forwards per sample, eNFE the rows computed in whole",
        "canvases, TPF the tokens before the first end token per forward, time the seconds per",
        "sample. Gap: share of the forwards between one token per step and the oracle that is",
        "saved; the oracle imitates the model's own answer and bounds nothing else. Tuned model:",
        "`python -m scripts.train redundancy` (an inferred recipe).",
        "",
        "What FreeDave reproduces is the same rule without drafts, same cache and dtype. Lossless",
        "are the exact modes, as far as a draft's logits do not depend on what else is in the",
        "batch; `subset` with a threshold and bfloat16 are labelled lossy whatever the count here",
        "is.",
    ]


def section(
    chapter: Chapter, table: Mapping[str, Row], same: Mapping[str, tuple[int, int, int]]
) -> list[str]:
    """One model's part of the page as Markdown."""
    lines = [
        "",
        f"## {chapter.model}",
        "",
        "| method | n | accuracy [95 %] | NFE | eNFE | TPF | time | gap closed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row.n} | {row.accuracy} | {row.nfe:.2f} | {row.enfe:.2f} "
            f"| {row.tpf:.2f} | {row.seconds:.3f} | {row.closed:.1%} |"
        )
    controls = [name for name in table if name.startswith("control of ")]
    beside = dict(chapter.beside)
    beside |= {name.removeprefix("control of ").split(":")[0]: name for name in controls}
    lines += ["", "### Beside the simpler rule", ""]
    lines += [f"- {_against(name, other, table)}" for name, other in beside.items()]
    # A control matched by probing the filter need not cost the same on real confidences.
    plain = [name for name in PLAIN if name in table]
    for name in (name for name in table if name.startswith("learn2pd")):
        nearest = min(plain, key=lambda other: abs(table[other].nfe - table[name].nfe))
        lines.append(f"- nearest in cost: {_against(name, nearest, table)}")
    lines += [
        "",
        "### What FreeDave reproduces",
        "",
        "| mode | samples | same tokens | more forwards |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {mode} | {n} | {equal} | {more} |" for mode, (n, equal, more) in same.items()
    ]
