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
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


TUNED = Path("results/training/tiny-llada-redundancy/model")
BASELINE, ORACLE = "one token per step", "oracle"
_EOTP = ["sampler=eotp", "sampler@sampler.base=learn2pd"]
_EOTP_CACHED = [*_EOTP, "sampler.zone=block", "sampler.base.conf_dtype=float64"]
_PLUS = ["sampler=freedave", "sampler@sampler.base=threshold"]
_TUNED = [f"model.path={TUNED}"]
CASES: dict[str, list[str]] = {
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
    "learn2pd + eotp, dual cache": [*_EOTP_CACHED, "cache=dual"],
    "r2dllm": ["sampler=r2dllm"],
    "r2dllm, dual cache": ["sampler=r2dllm", "cache=dual"],
    "freedave d=4": ["sampler=freedave"],
    "freedave d=8": ["sampler=freedave", "sampler.draft_steps=8"],
    "freedave d=4, dual cache": ["sampler=freedave", "cache=dual"],
    "freedave++ d=4, exact": _PLUS,
    "freedave++ d=4, subset": [*_PLUS, "sampler.verify.match=subset"],
    "one token per step, tuned model": ["sampler=low_confidence", *_TUNED],
    "threshold 0.9, tuned model": ["sampler=threshold", *_TUNED],
    "r2dllm, tuned model": ["sampler=r2dllm", *_TUNED],
}
"""Method -> options of `scripts.run`."""
_DUAL, _BF16 = ["cache=dual"], ["model.dtype=bfloat16"]
PAIRS: dict[str, tuple[list[str], list[str]]] = {
    "freedave d=4": (["sampler=low_confidence"], ["sampler=freedave"]),
    "freedave d=8": (
        ["sampler=low_confidence"],
        ["sampler=freedave", "sampler.draft_steps=8"],
    ),
    "freedave d=4, dual cache": (
        ["sampler=low_confidence", *_DUAL],
        ["sampler=freedave", *_DUAL],
    ),
    "freedave d=4, bfloat16": (
        ["sampler=low_confidence", *_BF16],
        ["sampler=freedave", *_BF16],
    ),
    "freedave++ d=4, exact": (["sampler=threshold"], _PLUS),
    "freedave++ d=4, subset": (
        ["sampler=threshold"],
        [*_PLUS, "sampler.verify.match=subset"],
    ),
}
"""Mode of FreeDave -> options of what it reproduces, and of itself."""
BESIDE = {
    "eotp alone": BASELINE,
    "learn2pd + eotp": "learn2pd 0.96",
    "r2dllm": "threshold 0.9",
    "freedave d=4": BASELINE,
    "freedave++ d=4, exact": "threshold 0.9",
    "threshold 0.9, tuned model": "threshold 0.9",
    "r2dllm, tuned model": "threshold 0.9, tuned model",
}
"""Method -> the simpler one next to it; the matched controls of filters are added."""
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


def learned(output: Path, limit: int) -> None:
    """Decodes what is missing and writes the page.

    Raises `ConfigError` while there is no tuned model.
    """
    if not TUNED.is_dir():
        raise ConfigError(f"{TUNED} does not exist: python -m scripts.train redundancy")
    found: dict[str, Mapping[str, Any]] = {}
    for name, options in CASES.items():
        found[name] = _summary(options, limit)
        if "control" in found[name]:
            found[f"control of {name}: {found[name]['control']['label']}"] = found[name]["control"]
        print(f"{name}: {found[name]['metrics']}", flush=True)
    same = {name: _same(*pair, limit) for name, pair in PAIRS.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(rows(found), same, limit))


def _summary(options: Sequence[str], limit: int) -> dict[str, Any]:
    config = compose([*_RUN, f"limit={limit}", *options])
    return execute(config, options[0].removeprefix("sampler="))[1]


def _same(reference: Sequence[str], method: Sequence[str], limit: int) -> tuple[int, int, int]:
    """Samples, those with equal tokens, and those with more forwards than the reference."""
    runs = []
    for options in (reference, method):
        config = compose([*_RUN, f"limit={limit}", *options])
        folder, _ = execute(config, options[0].removeprefix("sampler="))
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
        )
    return table


def _against(name: str, other: str, table: Mapping[str, Row]) -> str:
    """One sentence: forwards and accuracy of a method and of what it is to be compared with."""
    ours, theirs = table[name], table[other]
    forwards = f"{theirs.nfe / ours.nfe:.2f} times fewer forwards than {other}"
    return f"{name}: {forwards}; accuracy {ours.accuracy} against {theirs.accuracy}."


def page(table: Mapping[str, Row], same: Mapping[str, tuple[int, int, int]], limit: int) -> str:
    """The whole report as Markdown."""
    lines = [
        "# Learned, redundancy-aware and lossless methods on the embedded tasks",
        "",
        f"`python -m scripts.report embedded learned --limit {limit}`: tiny-llada, all kinds of",
        "the embedded tasks in turn, float32 on the CPU, batch 8, gen_length 32, one block of 32,",
        "seed 0. Accuracy is exact match with a 95 % Wilson interval, NFE the forwards per sample,",
        "eNFE the rows computed in whole canvases, TPF the tokens before the first end token per",
        "forward, time the seconds per sample on a machine shared with other work. Gap: share of",
        "the forwards between one token per step and the oracle that is saved; the oracle imitates",
        "the model's own answer and bounds nothing else. The tuned model is that of",
        "`python -m scripts.train redundancy` (an inferred recipe).",
        "",
        "| method | n | accuracy [95 %] | NFE | eNFE | TPF | time | gap closed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row.n} | {row.accuracy} | {row.nfe:.2f} | {row.enfe:.2f} "
            f"| {row.tpf:.2f} | {row.seconds:.3f} | {row.closed:.1%} |"
        )
    beside = {name: other for name, other in BESIDE.items() if {name, other} <= set(table)}
    controls = [name for name in table if name.startswith("control of ")]
    beside |= {name.removeprefix("control of ").split(":")[0]: name for name in controls}
    lines += ["", "## Beside the simpler rule", ""]
    lines += [f"- {_against(name, other, table)}" for name, other in beside.items()]
    # A control matched by probing the filter need not cost the same on real confidences.
    plain = [name for name in PLAIN if name in table]
    for name in (name for name in table if name.startswith("learn2pd") and plain):
        nearest = min(plain, key=lambda other: abs(table[other].nfe - table[name].nfe))
        lines.append(f"- nearest in cost: {_against(name, nearest, table)}")
    lines += [
        "",
        "## What FreeDave reproduces",
        "",
        "Against the same rule without drafts, same cache and dtype: samples with the same",
        "tokens, and samples that needed more forwards. Lossless are the exact modes, as far as a",
        "draft's logits do not depend on what else is in the batch; `subset` with a threshold and",
        "bfloat16 are labelled lossy whatever the count here is.",
        "",
        "| mode | samples | same tokens | more forwards |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {n} | {equal} | {more} |" for name, (n, equal, more) in same.items()]
    return "\n".join(lines) + "\n"
