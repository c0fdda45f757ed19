"""The report on runs that exist: tables, pictures, tests, and in what the runs differ."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dllm.metrics.bits import LIMITS
from dllm.metrics.definitions import SampleResult, Summary
from dllm.metrics.statistics import ALPHA, Verdict
from dllm.report import sweeps
from dllm.report.document import Document, Entry, Section, Table, html, markdown, number
from dllm.report.existing import Run
from dllm.report.groups import Group, Pair, words
from dllm.report.measured import against_published
from dllm.report.picture import frontier
from dllm.report.recipe import differences
from dllm.report.verdicts import Difference, spelled


SHOWN = 20
"""Samples whose answers are printed."""
LONGEST = 60
"""Characters of an option's value in a table."""
READING = (
    "accuracy: of the graded samples, with a 95 % Wilson interval. difference: accuracy minus the "
    "baseline's on the same samples, with a paired 95 % bootstrap interval.",
    "NFE: forwards per sample, of every kind. speed-up: the baseline's forwards over the run's, "
    "those of further models with them, with a paired interval. TPF: tokens before the first end "
    "token per forward. eNFE: rows computed per sample in whole canvases. padding: share of the "
    "committed positions behind the answer. tokens/s: of the run's own machine, once.",
    "bits/round: -log2 of the raw probabilities of what a round committed. bound: rounds that the "
    "rule needs at least for its bits. efficiency: bound over rounds made.",
    "frontier: no other run of the table has as much accuracy with as few forwards, and more of "
    "one; of the figures as they stand, whatever their intervals.",
    "verdict: a word stands only where a test carries it: better or worse by the exact McNemar "
    "test, equal by two one-sided score tests, p < {alpha} after Holm over all pairs of this page, "
    "equal within {margin:g}. Undecided is no equality: beside it stands the smallest true "
    "difference that these samples would show with power 0.8.",
)


def compare(groups: Sequence[Group], margin: float, command: str, output: Path) -> Document:
    """Draws the pictures beside `output`."""
    found, said = words(groups, margin)
    sections: list[Section] = []
    for index, group in enumerate(groups):
        mine = {pair[1:]: d for pair, d in found.items() if pair[0] == str(index)}
        word = {pair[1:]: w for pair, w in said.items() if pair[0] == str(index)}
        stem = output.with_name(f"{output.stem}-{index + 1}" if index else output.stem)
        sections += _of_group(group, mine, word, stem)
    sections += _published([run for group in groups for run in group.runs.values()])
    reading = [text.format(alpha=ALPHA, margin=margin) for text in READING]
    if any(run.bits is not None for group in groups for run in group.runs.values()):
        reading += LIMITS
    sections.append(Section("How to read it", reading))
    tasks = ", ".join(dict.fromkeys(group.task for group in groups))
    count = sum(len(group.runs) for group in groups)
    return Document(f"{count} {'run' if count == 1 else 'runs'}: {tasks}", command, sections)


def write(document: Document, output: Path) -> list[Path]:
    """The page and the same as Markdown beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    other = output.with_suffix(".md")
    for path, text in ((output, html(document)), (other, markdown(document))):
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return [output, other]


def _of_group(
    group: Group,
    found: Mapping[Pair, Difference],
    said: Mapping[Pair, Verdict],
    stem: Path,
) -> Iterator[Section]:
    models = {str(run.config.model.name) for run in group.runs.values()}
    title = f"{group.title}, {models.pop()}" if len(models) == 1 else group.title
    yield Section(title, table=_overview(group, found, said))
    graded = {n: r.graded for n, r in group.runs.items() if r.metrics.accuracy is not None}
    if graded:
        stem.parent.mkdir(parents=True, exist_ok=True)
        named = {f"{number} {group.names()[number]}": cell for number, cell in graded.items()}
        picture = frontier(named, group.title, stem)
        yield Section("Accuracy against forwards", picture=picture, level=3)
    if group.pairs():
        yield Section("Paired tests", table=_pairs(group, found, said), level=3)
    yield from sweeps.section(group)
    yield from _by_kind(group)
    yield from _by_difficulty(group)
    yield from _causes(group)
    yield from _disagreements(group)


def _overview(
    group: Group, found: Mapping[Pair, Difference], said: Mapping[Pair, Verdict]
) -> Table:
    """Columns that are empty for all runs are left out."""
    names, front = group.names(), group.frontier()
    models = {str(run.config.model.name) for run in group.runs.values()}
    rows = []
    for index, run in group.runs.items():
        m, pair = run.metrics, (index, group.baselines.get(index, ""))
        speed, bits = group.speed_up(index), run.bits
        bounded = bits if bits is not None and bits.bounded else None
        row = {
            "#": number(int(index), "{:.0f}"),
            "run": Entry(names[index]),
            "model": Entry(str(run.config.model.name) if len(models) > 1 else ""),
            "accuracy": _accuracy(m),
            "NFE": number(m.nfe),
            "speed-up": Entry("", 0.0) if speed is None else _interval(*speed, "{:.2f}"),
            "difference": _difference(found.get(pair)),
            "verdict": Entry(spelled(found[pair], said.get(pair)) if pair in found else ""),
            "TPF": number(m.tpf),
            "eNFE": number(m.enfe),
            "padding": number(m.padding_share),
            "tokens/s": number(m.tokens_per_second, "{:.0f}"),
            "bits/round": number(None if bits is None else bits.bits_per_round, "{:.3f}"),
            "bound": number(bounded and bounded.bound),
            "efficiency": number(bounded and bounded.efficiency),
            "frontier": Entry("yes" if index in front else ""),
            "failed, unparsed, unfit": Entry(_apart(m)),
        }
        rows.append(row)
    kept = [name for name in rows[0] if any(row[name].text for row in rows)]
    return Table(kept, [[row[name] for name in kept] for row in rows])


def _accuracy(m: Summary) -> Entry:
    if m.accuracy is None:
        return Entry("", float("-inf"))
    return _interval(m.accuracy, m.accuracy_low, m.accuracy_high, "{:.3f}")


def _interval(value: float, low: float, high: float, form: str) -> Entry:
    return Entry(f"{form.format(value)} [{form.format(low)}, {form.format(high)}]", value)


def _difference(difference: Difference | None) -> Entry:
    if difference is None:
        return Entry("", float("-inf"))
    return Entry(str(difference), difference.difference)


def _apart(m: Summary) -> str:
    counts = {"failed": m.failed, "unparsed": m.unparsed, "unfit": m.unfit}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _pairs(group: Group, found: Mapping[Pair, Difference], said: Mapping[Pair, Verdict]) -> Table:
    names, rows = group.names(), []
    for pair, kind in group.pairs().items():
        difference = found.get(pair)
        ours, theirs = (group.runs[one].samples for one in pair)
        same = sum(a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True))
        rows.append(
            [
                Entry(f"{pair[0]} {names[pair[0]]}"),
                Entry(f"{pair[1]} {names[pair[1]]} ({kind})"),
                _difference(difference),
                number(None if difference is None else difference.p, "{:.3g}"),
                number(None if difference is None else difference.p_equal, "{:.3g}"),
                Entry("no grades" if difference is None else spelled(difference, said.get(pair))),
                Entry(f"{same} of {len(ours)}", same),
            ]
        )
    columns = ["run", "beside", "difference", "p", "p of a margin", "verdict", "same tokens"]
    return Table(columns, rows)


def _by_kind(group: Group) -> Iterator[Section]:
    kinds = dict.fromkeys(s.task for run in group.runs.values() for s in run.samples)
    if len(kinds) < 2:
        return
    table = _parts(group, "kind", {kind: lambda s, kind=kind: s.task == kind for kind in kinds})
    yield Section("By kind", table=table, level=3)


def _by_difficulty(group: Group) -> Iterator[Section]:
    runs = [run.samples for run in group.runs.values() if run.metrics.graded == run.metrics.n]
    if len(runs) < 2:
        return
    solved = {of[0].id: sum(bool(s.correct) for s in of) for of in zip(*runs, strict=True)}
    parts = {
        "solved by all": lambda s: solved[s.id] == len(runs),
        "by some": lambda s: 0 < solved[s.id] < len(runs),
        "by none": lambda s: solved[s.id] == 0,
    }
    text = "The fewer of these runs solve a sample, the more difficult: other runs, other parts."
    table = _parts(group, "difficulty", parts)
    yield Section("Forwards by difficulty", [text], table, level=3)


def _parts(group: Group, heading: str, parts: Mapping[str, Any]) -> Table:
    """Accuracy and forwards of every run on parts of the samples."""
    names, rows = group.names(), []
    for part, holds in parts.items():
        for index, run in group.runs.items():
            inside: list[SampleResult] = [sample for sample in run.samples if holds(sample)]
            if not inside:
                continue
            m = Summary.of(inside)
            row = [Entry(part), Entry(f"{index} {names[index]}"), number(m.n, "{:.0f}")]
            rows.append([*row, _accuracy(m), number(m.nfe), number(m.tpf)])
    return Table([heading, "run", "n", "accuracy", "NFE", "TPF"], rows)


def _causes(group: Group) -> Iterator[Section]:
    if len(group.runs) < 2:
        return
    rows = []
    for found in differences([run.recipe for run in group.runs.values()]):
        values = [v if len(v) <= LONGEST else f"{v[:LONGEST]}..." for v in found.values]
        rows.append([Entry(text) for text in (found.name, *values, found.why)])
    if rows:
        text = "The likeliest cause of another result first."
        yield Section("What differs", [text], Table(["what", *group.runs, "why"], rows), level=3)


def _disagreements(group: Group) -> Iterator[Section]:
    """Answers of the first samples on which grades, or texts without a grade, are not the same."""
    names, rows, shown = group.names(), [], 0
    for answers in zip(*(run.samples for run in group.runs.values()), strict=True):
        if len({(a.correct, a.correct is None and a.output) for a in answers}) < 2:
            continue
        shown += 1
        if shown > SHOWN:
            break
        for index, answer in zip(group.runs, answers, strict=True):
            grade = {True: "right", False: "wrong", None: ""}[answer.correct]
            rows.append(
                [
                    Entry(answer.prompt),
                    Entry(f"{index} {names[index]}"),
                    Entry(grade),
                    number(answer.nfe, "{:.0f}"),
                    Entry(answer.failure or answer.output),
                ]
            )
    if rows:
        text = f"The first {min(shown, SHOWN)} samples that the runs answer otherwise."
        table = Table(["prompt", "run", "grade", "forwards", "answer"], rows)
        yield Section("Where the runs disagree", [text], table, level=3)


def _published(runs: Sequence[Run]) -> Iterator[Section]:
    lines = [line for run in runs for line in against_published(run)]
    if lines:
        text = (
            "Published and measured figures stand side by side and are not tested: the published "
            "ones have no samples. The last column names the options of the preset that this run "
            "does not have."
        )
        table = Table(list(lines[0]), [[Entry(v) for v in line.values()] for line in lines])
        yield Section("Published and measured", [text], table)


def write_csv(groups: Sequence[Group], margin: float, path: Path) -> None:
    """One line per run: every number of its summary, its pair with the baseline, its bits."""
    found, said = words(groups, margin)
    lines: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        front = group.frontier()
        for name, run in group.runs.items():
            pair = (str(index), name, group.baselines.get(name, ""))
            line = {
                "label": run.label,
                "fingerprint": run.fingerprint,
                "model": run.config.model.name,
                "task": group.task,
                "frontier": name in front,
                **dict(_flat(asdict(run.metrics))),
            }
            if pair in found:
                difference = found[pair]
                line |= {"baseline": group.runs[pair[2]].label, "verdict": said.get(pair)}
                line |= {k: v for k, v in asdict(difference).items() if k != "forwards"}
            if (speed := group.speed_up(name)) is not None:
                line |= dict(zip(("speedup", "speedup_low", "speedup_high"), speed, strict=True))
            if run.bits is not None:
                line["bits_per_round"] = run.bits.bits_per_round
                if run.bits.bounded:
                    line |= {"bound": run.bits.bound, "efficiency": run.bits.efficiency}
            lines.append(line | {"folder": str(run.folder.path)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)))
        writer.writeheader()
        writer.writerows(lines)


def _flat(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested numbers as `name/part`."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{part}", inner) for part, inner in value.items())
        else:
            yield name, value
