"""Rules decoded on exact probabilities, beside the closed forms of so many items per step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from dllm import config as configuration
from dllm.engine.loop import Decoder
from dllm.forward.toy import PROMPT, OraclePredictor, spelled
from dllm.metrics.statistics import ALPHA, holm, wilson
from dllm.report.cells import Cell
from dllm.report.suite import Exact
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.tasks.parallelbench.theory import equal_steps, lower_bound, sampled_accuracy
from dllm.tasks.toy_oracle import ToyOracle


ORACLES = {"shuffle": ToyOracle.shuffle, "replace_random": ToyOracle.replace_random}
BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Point:
    """One row of one kind and length."""

    kind: Any
    items: int
    row: str
    per_step: int | None
    """None where the rule chooses how many items a step decides."""
    correct: int
    n: int
    nfe: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.n)

    @property
    def ideal(self) -> float | None:
        """Closed form: items drawn at temperature 1, whatever the order."""
        if self.per_step is None:
            return None
        return sampled_accuracy(self.kind, equal_steps(self.items, self.per_step))

    @property
    def bits(self) -> float | None:
        if self.per_step is None:
            return None
        return lower_bound(self.kind, equal_steps(self.items, self.per_step))


def decoded(exact: Exact) -> Iterator[Point]:
    for kind in exact.kinds:
        for items in exact.items:
            oracle = ORACLES[kind](items)
            for per_step in (k for k in exact.per_step if items % k == 0):
                for row, options in exact.rows.items():
                    steps = f"sampler.steps={items // per_step}"
                    yield _decoded(exact, kind, oracle, f"{row}, k = {per_step}", per_step,
                                   [*options, steps])  # fmt: skip
            for row, options in exact.adaptive.items():
                yield _decoded(exact, kind, oracle, row, None, options)


def _decoded(
    exact: Exact,
    kind: str,
    oracle: ToyOracle,
    row: str,
    per_step: int | None,
    options: Sequence[str],
) -> Point:
    config = configuration.compose([*options, "sampler.region.block_length=null"])
    decoder = Decoder(
        OraclePredictor(oracle),  # type: ignore[arg-type]
        configuration.build(config.sampler, "sampler"),
        configuration.build(config.cache, "cache"),
        EosPolicy.NONE,
        None,
        BATCH,
        config.seed,
    )
    prompts = [Prompt(str(number), PROMPT, oracle.length) for number in range(exact.count)]
    outcomes = list(decoder.decode(prompts))
    right = sum(spelled(oracle, outcome.tokens) in oracle.weights for outcome in outcomes)
    nfe = sum(outcome.cost.nfe for outcome in outcomes) / exact.count
    return Point(kind=kind, items=oracle.length, row=row, per_step=per_step, correct=right,
                 n=exact.count, nfe=nfe)  # fmt: skip


def of_cells(row: str, cell: Cell) -> Point | None:
    """A run on lists of one length as a point; None where its steps have no fixed size."""
    config = cell.folder.config()
    steps, items, kind = config.sampler.get("steps"), config.gen_length, config.task.kinds[0]
    if steps is None or items % steps or kind not in ORACLES:
        return None
    n = cell.metrics["n"]
    return Point(kind=kind, items=items, row=row, per_step=items // steps,
                 correct=round(cell.accuracy * n), n=n, nfe=cell.nfe)  # fmt: skip


def section(exact: Exact, points: Sequence[Point]) -> Iterator[str]:
    """Lines of the page. Rows of fixed steps are tested against their closed form."""
    p_values = holm([float(binomtest(p.correct, p.n, p.ideal).pvalue) for p in points if p.ideal])
    adjusted = dict(zip([p for p in points if p.ideal], p_values, strict=True))
    off = [
        f"{p.row} on {p.kind} of {p.items} ({p.accuracy:.3f} for {p.ideal:.3f})"
        for p, value in adjusted.items()
        if value < ALPHA
    ]
    listed = f" ({'; '.join(off)})" if off else ""
    said = (
        f"**Beside the closed form**, of {len(adjusted)} rows: {len(off)} differ from it"
        f"{listed}, {len(adjusted) - len(off)} are not refuted "
        f"(exact binomial test, p < {ALPHA} after Holm; not refuted is not equal)."
    )
    yield from ("", f"## {exact.title}", "", *wrap(exact.text, 100), "", *wrap(said, 100))
    for kind in exact.kinds:
        table = [
            {
                "items": p.items,
                "row": p.row,
                "n": p.n,
                "accuracy": f"{p.accuracy:.3f} [{p.interval[0]:.3f}, {p.interval[1]:.3f}]",
                "ideal": "-" if p.ideal is None else f"{p.ideal:.3f}",
                "bits lost": "-" if p.bits is None else f"{p.bits:.3f}",
                "forwards": f"{p.nfe:.2f}",
                "word": _word(adjusted.get(p)),
            }
            for p in points
            if p.kind == kind
        ]
        yield from ("", f"### {kind}", "")
        yield pd.DataFrame(table).to_markdown(index=False, disable_numparse=True)


def _word(p: float | None) -> str:
    if p is None:
        return ""
    return f"differs (p = {p:.1e})" if p < ALPHA else f"not refuted (p = {p:.2f})"


def draw(exact: Exact, points: Sequence[Point], embedded: Sequence[Point], path: Path) -> None:
    """Writes a PNG, a panel per kind and length: accuracy against items per step."""
    import matplotlib

    matplotlib.use("Agg")  # draws into files only
    from matplotlib import pyplot

    panels = [(kind, items) for kind in exact.kinds for items in exact.items]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4 * len(panels), 4), layout="constrained", squeeze=False
    )
    for axis, (kind, items) in zip(axes[0], panels, strict=True):
        here = [p for p in points if (p.kind, p.items) == (kind, items) and p.per_step]
        ideal = {p.per_step: p for p in here}
        axis.plot([*ideal], [p.ideal for p in ideal.values()], "k-", label="ideal (closed form)")
        for k, p in ideal.items():
            axis.annotate(f"{p.bits:.2f} bits", (k, p.ideal), (4, 6),
                          textcoords="offset points", size=7)  # fmt: skip
        shown = [(f"exact: {row}", [p for p in here if p.row.startswith(f"{row}, ")])
                 for row in exact.rows]  # fmt: skip
        mine = [p for p in embedded if (p.kind, p.items) == (kind, items)]
        shown.append(("tiny-llada: confidence", [p for p in mine if "random" not in p.row]))
        shown.append(("tiny-llada: random", [p for p in mine if "random" in p.row]))
        for number, (label, found) in enumerate(shown):
            if found:
                low, high = zip(*(p.interval for p in found), strict=True)
                at = [p.accuracy for p in found]
                spread = [
                    [max(0.0, a - b) for a, b in zip(at, low, strict=True)],
                    [max(0.0, b - a) for a, b in zip(at, high, strict=True)],
                ]
                place = [p.per_step + 0.06 * (number - 1.5) for p in found if p.per_step]
                axis.errorbar(place, at, yerr=spread, fmt="o", ms=4, lw=0.8, label=label)
        axis.set(title=f"{kind}, {items} items", xlabel="items per step", ylabel="accuracy")
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
