"""The comparison table at the end of a run or sweep, from the summaries in the run folders."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from dllm.errors import ConfigError
from dllm.printable import printable
from dllm.report.bits import RunBits
from dllm.runs.folder import RunFolder


COLUMNS = (
    "sampler",
    "task",
    "n",
    "accuracy [95 %]",
    "NFE",
    "TPF",
    "padding",
    "tokens/s",
    "speed-up NFE",
)
FOOTNOTE = (
    "NFE: forwards per sample, of every kind; those of a further model stand after the + and are "
    "not in TPF; in brackets the canvases that they hold, where a forward holds several (branches, "
    "guidance). TPF: tokens before the first end token per forward, over all samples; those of a "
    "failed one do not count, here and in tokens/s. "
    "padding: share of the committed positions that lie behind the answer. "
    "speed-up: forwards of all models, baseline over run, on the same samples (none that failed in "
    "either), canvas, blocks and end policy; with a verifier, too, the baseline is the canvas's "
    "own model, one token per step (the verifier's own decoding is model=VERIFIER "
    "sampler=left_to_right). tokens/s is this machine's, once."
)


CONSTRAINED = ("valid", "checks", "vetoes/token", "share")
CONSTRAINED_FOOTNOTE = (
    "valid: share of the outputs by the task's own judges (syntax, schema); a constraint's answers "
    "are valid or failed. checks: of the constraint, per sample, of these so many lookaheads, and "
    "how many ran out of time. vetoes/token: what it refused per token before the first end token. "
    "share: of the decode time."
)


def ratio(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.2f}{unit}"


def constrained(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What a constraint did, and how valid the outputs are."""
    m = run["metrics"]
    valid = " ".join(f"{name} {share:.3f}" for name, share in m.get("scores", {}).items())
    checks = f"{m['checks']:.1f}"
    if m.get("lookaheads"):
        checks += f" ({m['lookaheads']:.1f} lookaheads)"
    if m["timeouts"]:
        checks += f" ({m['timeouts']} timed out)"
    return valid, checks, ratio(m["vetoes_per_token"]), f"{m['constraint_share']:.1%}"


def cells(run: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the table from the contents of a summary.json."""
    m = run["metrics"]
    accuracy = "-"
    if m["accuracy"] is not None:
        accuracy = f"{m['accuracy']:.3f} [{m['accuracy_low']:.3f}, {m['accuracy_high']:.3f}]"
    if m["failed"]:
        accuracy += f" ({m['failed']} failed)"
    if m.get("truncated"):
        accuracy += f" ({m['truncated']} truncated)"
    for apart in ("unparsed", "unfit"):
        if m.get(apart):
            accuracy += f" ({m[apart]} {apart})"
    forwards = f"{m['nfe']:.1f}"
    if m.get("aux_forwards"):
        forwards += f" ({m['nfe'] + m['aux_forwards']:.1f} canvases)"
    for name, count in m.get("other_forwards", {}).items():
        forwards += f" + {count:.1f} {name}"
    versus = run.get("versus_baseline")
    return (
        printable(run["label"]),
        printable(run["task"]),
        str(m["n"]),
        accuracy,
        forwards,
        f"{m['tpf']:.2f}",
        f"{m['padding_share']:.2f}",
        f"{m['tokens_per_second']:.0f}",
        ratio(versus and versus["nfe_speedup"], "x"),
    )


def failures(run: Mapping[str, Any]) -> list[str]:
    """One line for each of a run, its baseline and its control in which samples failed."""
    found = []
    for summary in (run, run.get("baseline"), run.get("control")):
        if summary is not None and (failed := summary["metrics"]["failed"]):
            n = summary["metrics"]["n"]
            found.append(
                f"{summary['label']}: {failed} of {n} samples failed: {summary['failure']}"
            )
    return found


BITS = ("bits/round", "bound", "efficiency")
BITS_FOOTNOTE = (
    "bits/round: -log2 of the raw probabilities of what a round commits; bound: rounds that the "
    "rule needs at least for its bits, - where it bounds nothing; efficiency: bound / rounds "
    "(python -m scripts.bits)."
)


def bits_of(runs: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> dict[str, Sequence[str]]:
    """The cells of `BITS` by fingerprint, for runs, baselines and controls that have traces."""
    found: dict[str, Sequence[str]] = {}
    for run, folder in zip(runs, folders, strict=True):
        for one in filter(None, (run, run.get("baseline"), run.get("control"))):
            for own in folder.parents[1].glob(f"*/{one['fingerprint']}"):
                with suppress(ConfigError):
                    bits = RunBits.of(RunFolder(own))
                    bound = "-", "-"
                    if bits.bounded:
                        bound = f"{bits.bound:.1f}", f"{bits.efficiency:.2f}"
                    found[one["fingerprint"]] = (f"{bits.bits_per_round:.2f}", *bound)
    return found


def comparison(
    runs: Sequence[Mapping[str, Any]], bits: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Table:
    """Runs below their baselines and controls; one shared by several runs is shown once. `bits`:
    the cells of `BITS` by fingerprint."""
    further = any(run["metrics"]["checks"] for run in runs)
    names = (*COLUMNS, *(CONSTRAINED if further else ()), *(BITS if bits else ()))
    # A label that is cut off could hide what tells two rows apart.
    first = Column(names[0], overflow="fold", min_width=min(24, max(len(r["label"]) for r in runs)))
    table = Table(first, *(Column(name, overflow="fold") for name in names[1:]))
    shown: set[str] = set()

    def add(run: Mapping[str, Any], style: str | None = None) -> None:
        more = constrained(run) if further else ()
        table.add_row(*cells(run), *more, *bits.get(run["fingerprint"], ()), style=style)

    for run in runs:
        baseline = run.get("baseline")
        if baseline is not None and baseline["fingerprint"] not in shown:
            shown.add(baseline["fingerprint"])
            add(baseline, style="dim")
        control = run.get("control")
        if control is not None and control["fingerprint"] not in shown:
            shown.add(control["fingerprint"])
            add({**control, "label": f"control: {control['label']}"}, style="dim")
        if run["fingerprint"] not in shown:
            shown.add(run["fingerprint"])
            add(run)
    return table


def print_comparison(runs: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
    # Labels and paths are texts: their brackets are no styles.
    console = Console(width=None if Console().is_terminal else 190, markup=False, emoji=False)
    bits = bits_of(runs, folders)
    console.print(comparison(runs, bits))
    console.print(FOOTNOTE, style="dim", highlight=False)
    if any(run["metrics"]["checks"] for run in runs):
        console.print(CONSTRAINED_FOOTNOTE, style="dim", highlight=False)
    if bits:
        console.print(BITS_FOOTNOTE, style="dim", highlight=False)
    for folder in folders:
        console.print(printable(f"run folder: {folder}"), highlight=False, soft_wrap=True)
