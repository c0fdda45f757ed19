"""Columns of a suite's tables: what each shows, and how it is defined."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from hydra.utils import get_class

from dllm.constraints.languages import LarkText, built_in
from dllm.metrics.definitions import SampleResult
from dllm.metrics.order import decoding_order
from dllm.metrics.statistics import ratio_interval, wilson
from dllm.report.bits import RunBits
from dllm.report.cells import Cell
from dllm.report.judged import agreeing, perplexity
from dllm.report.tables import ratio
from dllm.tasks.parallelbench.theory import Kind, lower_bound, sampled_accuracy


@dataclass(frozen=True)
class Column:
    definition: str
    """A phrase for the page's legend."""
    show: Callable[[Cell], str]


@dataclass(frozen=True)
class Beside:
    """Of a row and the table's first one, on the same samples."""

    definition: str
    show: Callable[[Cell, Cell], str]
    """(the row's cell, the first row's)."""


def _accuracy(cell: Cell) -> str:
    m = cell.metrics
    failed = f" ({m['failed']} failed)" if m["failed"] else ""
    return f"{m['accuracy']:.3f} [{m['accuracy_low']:.3f}, {m['accuracy_high']:.3f}]{failed}"


def _kinds(cell: Cell) -> str:
    return ", ".join(f"{kind} {count:.1f}" for kind, count in cell.metrics["nfe_by_kind"].items())


def _wasted(cell: Cell) -> str:
    canvas = sum(len(sample.tokens) for sample in cell.samples)
    return f"{1 - sum(sample.effective for sample in cell.samples) / max(1, canvas):.2f}"


def _block(cell: Cell) -> str:
    opened = [s.opened for trace in cell.folder.traces() for s in trace.steps if s.opened]
    lengths = [end - max(start, 0) for start, end in opened]
    return f"{sum(lengths) / max(1, len(lengths)):.1f}"


def _order(cell: Cell) -> str:
    """Mean over the samples whose positions were committed in several steps."""
    effective = {sample.id: sample.effective for sample in cell.samples}
    found = []
    for trace in cell.folder.traces():
        committed = [-1] * trace.gen_length
        for number, step in enumerate(trace.steps):
            for position in step.positions:
                if position < trace.gen_length:
                    committed[position] = number
        kendall = decoding_order(committed, effective[trace.sample_id]).kendall
        if kendall is not None:
            found.append(kendall)
    return f"{sum(found) / len(found):+.2f}" if found else "-"


def _bits(name: str, form: str) -> Callable[[Cell], str]:
    def show(cell: Cell) -> str:
        run = RunBits.of(cell.folder)
        return form.format(getattr(run, name)) if run.bounded or name == "bits_per_round" else "-"

    return show


def _correlation(cell: Cell) -> str:
    run = RunBits.of(cell.folder)
    return f"{run.correlation:.2f}" if run.scored else "-"


def _ideal(show: Callable[[Kind, list[int]], float], form: str) -> Callable[[Cell], str]:
    """Of an ideal model that decodes the run's items in the run's steps; answers must consist of
    items alone."""

    def shown(cell: Cell) -> str:
        config = cell.folder.config()
        steps, items = config.sampler.get("steps"), config.gen_length
        if steps is None:
            return "-"
        sizes = [items // steps + (step < items % steps) for step in range(steps)]
        return form.format(show(config.task.kinds[0], sizes))

    return shown


def _audited(name: str, form: str) -> Callable[[Cell], str]:
    return lambda cell: form.format(cell.metrics[name]) if cell.metrics["audited"] else ""


def _score(name: str) -> Callable[[Cell], str]:
    def show(cell: Cell) -> str:
        scores = cell.metrics["scores"]
        return f"{scores[name]:.3f}" if name in scores else ""

    return show


def _per_cycle(cell: Cell) -> float:
    return sum(len(s.tokens) for s in cell.samples) / max(1, sum(s.steps for s in cell.samples))


def _accepted(cell: Cell) -> str:
    """Beyond the answer's end nothing counts, however much was drafted there."""
    ends = {sample.id: len(sample.tokens) for sample in cell.samples}
    cycles = accepted = 0
    for trace in cell.folder.traces():
        for step in trace.steps:
            cycles += bool(step.positions)
            drafts = step.marks.get("accepted", ())
            accepted += sum(position < ends[trace.sample_id] for position in drafts)
    return f"{accepted / max(1, cycles):.2f}" if accepted else "-"


@cache
def _sums() -> LarkText:
    return LarkText(built_in("arithmetic"), "start")


def _grammatical(cell: Cell) -> str:
    fine = [_sums().complaint(sample.output) is None for sample in cell.samples]
    return f"{sum(fine) / max(1, len(fine)):.3f}"


def _verifier(cell: Cell) -> float:
    return sum(cell.metrics["other_forwards"].values())


def _target(sample: SampleResult) -> int:
    return sum(sample.other_forwards.values()) or sample.nfe


def _saved(cell: Cell, first: Cell) -> str:
    ours, theirs = ([_target(sample) for sample in one.samples] for one in (cell, first))
    low, high = ratio_interval(ours, theirs)
    return f"{sum(ours) / sum(theirs):.2f} [{low:.2f}, {high:.2f}]"


def _agreement(cell: Cell, first: Cell) -> str:
    ours, theirs = ([sample.output for sample in one.samples] for one in (cell, first))
    numbered = get_class(cell.folder.config().task._target_).final_number
    n, same = len(ours), agreeing(ours, theirs, numbered)
    low, high = wilson(same, n)
    return f"{same / n:.2f} [{low:.2f}, {high:.2f}]"


def _perplexity(cell: Cell) -> str:
    value, low, high = perplexity(cell)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


COLUMNS = {
    "n": Column("samples", lambda cell: str(cell.metrics["n"])),
    "accuracy": Column("exact match with a 95 % Wilson interval", _accuracy),
    "NFE": Column("forwards per sample", lambda cell: f"{cell.nfe:.2f}"),
    "kinds": Column("NFE by kind", _kinds),
    "verifier": Column(
        "forwards of the verifying model per sample, its prefill included; no part of the NFE",
        lambda cell: f"{_verifier(cell):.2f}",
    ),
    "tokens/cycle": Column(
        "tokens per decision: drafts that were accepted and the verifier's own",
        lambda cell: f"{_per_cycle(cell):.2f}",
    ),
    "accepted/cycle": Column("drafts accepted per decision", _accepted),
    "target": Column(
        "forwards of the model whose answer it is, prefill included: the verifier's, or else the "
        "model's own",
        lambda cell: f"{_verifier(cell) or cell.nfe:.2f}",
    ),
    "perplexity": Column(
        "of the answers under the autoregressive base, with a 95 % bootstrap interval",
        _perplexity,
    ),
    "drafter": Column(
        "forwards of the drafting model per sample",
        lambda cell: f"{cell.nfe:.2f}" if _verifier(cell) else "0.00",
    ),
    "canvases": Column(
        "canvases per sample, those of branches beside the first of each forward included",
        lambda cell: f"{cell.nfe + cell.metrics['aux_forwards']:.2f}",
    ),
    "eNFE": Column(
        "rows computed per sample in whole canvases, drafts included",
        lambda cell: f"{cell.metrics['enfe']:.2f}",
    ),
    "TPF": Column(
        "tokens before the first end token, per forward",
        lambda cell: f"{cell.metrics['tpf']:.2f}",
    ),
    "rows": Column(
        "query positions computed per token before the first end token",
        lambda cell: f"{cell.metrics['rows_per_token']:.1f}",
    ),
    "block": Column("mean length of the blocks that were decoded (of dystruct's windows)", _block),
    "order": Column(
        "Kendall's tau of commit step and position before the first end token, mean over the "
        "samples with several steps: +1 = left to right",
        _order,
    ),
    "bits/round": Column(
        "-log2 of the raw probabilities of what was committed, per round",
        _bits("bits_per_round", "{:.3f}"),
    ),
    "bound": Column(
        "rounds per sample that the rule needs at least for its bits; - = it bounds nothing",
        _bits("bound", "{:.2f}"),
    ),
    "efficiency": Column("bound / rounds", _bits("efficiency", "{:.2f}")),
    "correlation": Column(
        "bits of the path beyond those of the same tokens revealed one at a time, per sample",
        _correlation,
    ),
    "json": Column("share of the outputs that are JSON", _score("json")),
    "schema": Column(
        "share of the outputs that are valid by the sample's schema", _score("schema")
    ),
    "sums": Column(
        "share of the outputs that are sentences of the built-in grammar of worked sums, by Lark",
        _grammatical,
    ),
    "checks": Column(
        "the constraint's single checks per sample", lambda cell: f"{cell.metrics['checks']:.1f}"
    ),
    "lookaheads": Column(
        "those checks that only tried likely fillings, per sample",
        lambda cell: f"{cell.metrics['lookaheads']:.1f}",
    ),
    "vetoes": Column(
        "what the constraint refused per token before the first end token",
        lambda cell: ratio(cell.metrics["vetoes_per_token"]),
    ),
    "share": Column(
        "share of the decode time spent in the constraint's reviews",
        lambda cell: f"{cell.metrics['constraint_share']:.1%}",
    ),
    "timeouts": Column(
        "checks that ran out of time, of all samples", lambda cell: str(cell.metrics["timeouts"])
    ),
    "wasted": Column("share of the final canvas from the first end token on", _wasted),
    "bits lost": Column(
        "divergence from the true distribution that no model can avoid with so many items per step",
        _ideal(lower_bound, "{:.3f}"),
    ),
    "ideal": Column(
        "accuracy of a model with exact probabilities whose items are drawn at temperature 1",
        _ideal(sampled_accuracy, "{:.3f}"),
    ),
    "stale": Column(
        "share of the attended slots whose own token had changed since they were computed",
        lambda cell: f"{cell.metrics['stale_share']:.1%}",
    ),
    "KL": Column(
        "mean divergence from the cache-free prediction in nats (audited runs)",
        _audited("audit_kl", "{:.1e}"),
    ),
    "changed": Column(
        "share of the decisions that the cache-free prediction would have made otherwise",
        _audited("audit_changed", "{:.1%}"),
    ),
}

BESIDE = {
    "of the first": Beside(
        "target over the first row's on the same samples, with a 95 % bootstrap interval", _saved
    ),
    "agreement": Beside(
        "share of the answers that are the same as the first row's (of tasks that ask for a "
        "number, end with the same one), with a 95 % Wilson interval",
        _agreement,
    ),
}
"""Those that stand beside the table's first row."""
