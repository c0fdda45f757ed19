"""Blocks and canvases that adapt, beside fixed ones, and block diffusion, on the embedded tasks.

Every cell is an ordinary run (same folder, same resume as `scripts.run`). Blocks are read from the
traces; the wasted canvas is the share of the final positions that the answer did not need. The
needed canvas of a task is that of its longest reference answer: what a fixed length has to allow
for without knowing the question.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.metrics.statistics import mcnemar
from dllm.models.hub import ModelOptions, checkpoint_folder, open_spec
from dllm.models.tokenizers import Tokenizer, load_tokenizer
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder
from dllm.tasks.base import Sample


Options = Sequence[str]
_TEXTS = '=["\n",",","}"]'


@dataclass(frozen=True)
class Chapter:
    """What is compared on one model."""

    title: str
    text: str
    model: str
    tasks: Mapping[str, Options]
    cases: Callable[[int], Mapping[str, Options]]
    """Needed canvas -> row -> options of `scripts.run`."""
    beside: Mapping[str, Sequence[str]]
    """Row -> the simpler ones that it is to be compared with."""
    run: Options = ()
    """Options of all rows."""


def _fixed(block: int) -> Options:
    return ["sampler=threshold", f"sampler.region.block_length={block}"]


def _adaptive(block: int, sampler: str = "adablock") -> Options:
    region = [] if sampler == "adablock" else ["sampler/region=adaptive"]
    return [
        f"sampler={sampler}",
        *region,
        f"sampler.region.default_block_length={block}",
        f"sampler.region.delimiters{_TEXTS}",
    ]


def _block_cases(needed: int) -> dict[str, Options]:
    localleap = ["sampler=localleap", "sampler.region.block_length=16"]
    return {
        "one token per step, blocks of 16": [
            "sampler=low_confidence",
            "sampler.region.block_length=16",
        ],
        **{f"blocks of {n}": _fixed(n) for n in (8, 16, 32)},
        **{f"adablock, default {n}": _adaptive(n) for n in (8, 16, 32)},
        "blocks of 16, prefix cache": [*_fixed(16), "cache=prefix"],
        "adablock, default 16, prefix cache": [*_adaptive(16), "cache=prefix"],
        "blocks of 16, dual cache": [*_fixed(16), "cache=dual"],
        "adablock, default 16, dual cache": [*_adaptive(16), "cache=dual"],
        "localleap in blocks of 16": localleap,
        "localleap in adaptive blocks, default 16": _adaptive(16, "localleap"),
        "bacd in blocks of 16": [
            "sampler=bacd",
            "sampler/region=fixed",
            "sampler.region.block_length=16",
        ],
    }


def _canvas_cases(needed: int) -> dict[str, Options]:
    def canvas(times: int) -> list[str]:
        return [f"gen_length={times * needed}", "batch_size=4"]

    block = f"sampler.region.block_length={needed}"
    dystruct = [
        "sampler=dystruct",
        "sampler.region.largest_window=32",
        f"sampler.delimiters{_TEXTS}",
        *canvas(4),
    ]
    return {
        **{f"fixed canvas, {n}x": ["sampler=threshold", block, *canvas(n)] for n in (1, 2, 4)},
        "fixed canvas, 4x, ends with its block": [
            "sampler=threshold",
            block,
            *canvas(4),
            "eos=cut_after_block",
        ],
        "daedal": [
            "sampler=daedal",
            block,
            "sampler.region.initial_length=16",
            "sampler.eos_window=8",
            *canvas(4),
        ],
        "rho_eos": ["sampler=rho_eos", block, "sampler.region.initial_length=32", *canvas(4)],
        "dystruct (reconstruction)": dystruct,
        "dystruct (reconstruction), no quota, no welding": [
            *dystruct,
            "sampler.quota=false",
            "sampler.weld_radius=0",
        ],
        "dystruct (reconstruction), sampled, no quota, no welding": [
            *dystruct,
            "sampler.structure.inference=sample",
            "sampler.quota=false",
            "sampler.weld_radius=0",
        ],
    }


def _diffusion_cases(needed: int) -> dict[str, Options]:
    sdar = ["sampler=sdar", "sampler.region.block_length=null"]
    # The empty turn that follows is the one sentence that this vocabulary has for a second try.
    critic = ["sampler.critic='<|assistant|>'"]
    return {
        "static, one token per step": [*sdar, "sampler.mode=static"],
        "static, 4 steps": [*sdar, "sampler.mode=static", "sampler.denoising_steps=4"],
        "static, 2 steps": [*sdar, "sampler.mode=static", "sampler.denoising_steps=2"],
        "sequential, one token per step": [*sdar, "sampler.mode=sequential"],
        "sequential, 4 steps": [*sdar, "sampler.mode=sequential", "sampler.denoising_steps=4"],
        "dynamic 0.9": [*sdar, "sampler.threshold=0.9"],
        "dynamic 0.6": [*sdar, "sampler.threshold=0.6"],
        "dynamic 0.9, blocks of 1": [*sdar[:1], "sampler.region.block_length=1"],
        "bacd": ["sampler=bacd"],
        "dynamic 0.9 + tccf": [
            "sampler=tccf",
            "sampler@sampler.base=sdar",
            "sampler.base.threshold=0.9",
            *critic,
        ],
        "bacd + tccf": ["sampler=tccf", *critic],
    }


CHAPTERS = (
    Chapter(
        "Fixed and adaptive blocks",
        "gen_length 32. AdaBlock ends a block on a predicted newline, comma or closing brace: "
        "answers of listops have none of them, so that nothing may change there. In-block rule: "
        "threshold 0.9 unless the row says otherwise.",
        "tiny-llada",
        {name: [f"task={name}"] for name in ("json", "arithmetic", "listops")},
        _block_cases,
        {
            **{f"adablock, default {n}": [f"blocks of {n}"] for n in (8, 16, 32)},
            **{
                f"adablock, default 16, {name} cache": [f"blocks of 16, {name} cache"]
                for name in ("prefix", "dual")
            },
            "localleap in adaptive blocks, default 16": ["localleap in blocks of 16"],
            "bacd in blocks of 16": ["blocks of 16"],
        },
    ),
    Chapter(
        "Fixed and growing canvases",
        "Kinds of the embedded suite whose answers differ most in length among those that the "
        "model knows: lists of 2 to 8 names, JSON, squares. All canvases are decoded in blocks of "
        "the needed length but dystruct's, whose are inferred; what grows may grow to 4x. The "
        "model has seen canvases of 32 to 96 positions in training, prompt included. Constants of "
        "daedal (initial 16, window of 8 end tokens), rho_eos (initial 32) and dystruct "
        "(look-ahead 32) are scaled to these answers, not tuned.",
        "tiny-llada",
        {"lists, json and squares": ["task=embedded", "task.kinds=[copy,remove,json,latin]"]},
        _canvas_cases,
        {
            name: ["fixed canvas, 1x", "fixed canvas, 4x", "fixed canvas, 4x, ends with its block"]
            for name in _canvas_cases(1)
            if not name.startswith("fixed")
        },
    ),
    Chapter(
        "Block diffusion",
        "Blocks of 8 from position 0, exact cache (cache=block), gen_length 32, greedy, ended "
        "after the block of the first end token (eos=cut_after_block). `dynamic` commits what "
        "exceeds the threshold. TCCF answers a second time in blocks of 1, behind an empty turn "
        "marker in place of the critic sentence, and is graded by that answer: the model was "
        "trained neither to go on after an answer nor for blocks of 1, so that its rows show what "
        "a second phase costs and not what it is good for; `blocks of 1` shows what the attention "
        "alone changes. TPF counts the tokens of both phases; blocks and canvas are the second "
        "phase's.",
        "tiny-sdar",
        {name: [f"task={name}"] for name in ("json", "listops", "latin")},
        _diffusion_cases,
        {
            "static, 4 steps": ["static, one token per step"],
            "dynamic 0.9": ["static, one token per step"],
            "dynamic 0.9, blocks of 1": ["dynamic 0.9"],
            "bacd": ["dynamic 0.9"],
            "dynamic 0.9 + tccf": ["dynamic 0.9"],
            "bacd + tccf": ["bacd"],
        },
        ["cache=block", "eos=cut_after_block"],
    ),
)
_RUN = ["tracker=none", "progress=false", "trace=true", "baseline=false"]


@dataclass(frozen=True)
class Row:
    """One case on one task."""

    model: str
    metrics: Mapping[str, Any]
    block: float
    """Mean length of the blocks that were decoded; of a window for dystruct."""
    wasted: float
    """Share of the final canvas from the first end token on."""
    grades: tuple[bool, ...]
    """Sample by sample, in the same order for every case."""

    @classmethod
    def of(cls, folder: RunFolder, summary: Mapping[str, Any], eos_ids: Sequence[int]) -> "Row":
        opened = [s.opened for trace in folder.traces() for s in trace.steps if s.opened]
        lengths = [end - max(start, 0) for start, end in opened]
        samples = sorted(folder.samples(), key=lambda sample: sample.id)
        canvas = sum(len(sample.tokens) for sample in samples)
        used = sum(_before_end(sample.tokens, eos_ids) for sample in samples)
        return cls(
            summary["model"],
            summary["metrics"],
            sum(lengths) / max(1, len(lengths)),
            1 - used / max(1, canvas),
            tuple(sample.correct for sample in samples),
        )

    def line(self, name: str) -> str:
        m = self.metrics
        kinds = {kind: n for kind, n in m["nfe_by_kind"].items() if kind != "step"}
        extra = ", ".join(f"{kind} {n:.1f}" for kind, n in kinds.items())
        nfe = f"{m['nfe']:.2f}" + (f" ({extra})" if extra else "")
        cells = [
            name,
            self.model,
            str(m["n"]),
            f"{m['accuracy']:.3f} [{m['accuracy_low']:.3f}, {m['accuracy_high']:.3f}]",
            nfe,
            f"{m['tpf']:.2f}",
            f"{m['rows_per_token']:.1f}",
            f"{self.block:.1f}",
            f"{self.wasted:.2f}",
        ]
        return "| " + " | ".join(cells) + " |"


_HEAD = [
    "| case | model | n | accuracy [95 %] | NFE | TPF | rows | mean block | wasted canvas |",
    "|---|---|---|---|---|---|---|---|---|",
]


def _before_end(tokens: Sequence[int], eos_ids: Sequence[int]) -> int:
    return next((i for i, token in enumerate(tokens) if token in eos_ids), len(tokens))


def needed_canvas(samples: Sequence[Sample], tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens of the shortest and of the longest reference answer, its end token included."""
    lengths = [len(tokenizer.encode(sample.answer)) + 1 for sample in samples]
    return min(lengths), max(lengths)


def blocks(
    output: Path,
    limit: int,
    cases: Sequence[str] = (),
    tasks: Sequence[str] = (),
    chapters: Sequence[Chapter] = CHAPTERS,
) -> None:
    """Decodes what is missing and writes the page."""
    known = {name for chapter in chapters for name in chapter.cases(1)}
    for name in cases:
        if name not in known:
            raise ConfigError(f"--samplers {name!r} is not one of {', '.join(sorted(known))}")
    for name in tasks:
        if not any(name in chapter.tasks for chapter in chapters):
            every = ", ".join(repr(task) for chapter in chapters for task in chapter.tasks)
            raise ConfigError(f"--tasks {name!r} is not one of {every}")
    lines = _opening(limit)
    for chapter in chapters:
        wanted = {task: o for task, o in chapter.tasks.items() if not tasks or task in tasks}
        if wanted and any(not cases or name in cases for name in chapter.cases(1)):
            lines += _section(chapter, wanted, limit, cases)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


def _opening(limit: int) -> list[str]:
    return [
        "# Adaptive blocks, growing canvases and block diffusion on the embedded tasks",
        "",
        f"`python -m scripts.report embedded blocks --limit {limit}`: float32 on the CPU, seed 0,",
        "held-out samples. Accuracy is exact match with a 95 % Wilson interval; NFE the forwards",
        "per sample, of which those that decide nothing in brackets; TPF the tokens before the",
        "first end token per forward; rows the query positions computed per such token, to which a",
        "long canvas adds and a cache does not. The mean block is that of the blocks decoded, for",
        "dystruct of its windows. The wasted canvas is the share of the final positions from the",
        "first end token on.",
        "",
        "The models are tiny and the tasks are their training tasks: an order of methods seen here",
        "is no statement about large models. `dystruct` is a reconstruction without public code:",
        "its rows say nothing about the paper.",
    ]


def _section(
    chapter: Chapter, tasks: Mapping[str, Options], limit: int, cases: Sequence[str]
) -> list[str]:
    lines = ["", f"## {chapter.title}: {chapter.model}", "", *wrap(chapter.text, 100)]
    measured: dict[str, dict[str, Row]] = {}
    for task, options in tasks.items():
        common = [f"model={chapter.model}", f"limit={limit}", *_RUN, *options, *chapter.run]
        config = compose(common)
        model: ModelOptions = build(config.model, "model")
        tokenizer = load_tokenizer(checkpoint_folder(model))
        samples = build(config.task, "task").samples("test", config.limit, config.seed)
        shortest, longest = needed_canvas(samples, tokenizer)
        measured[task] = rows = {}
        for name, case in chapter.cases(longest).items():
            if cases and name not in cases:
                continue
            sampler = case[0].removeprefix("sampler=")
            folder, summary = execute(compose([*common, *case]), sampler)
            rows[name] = Row.of(RunFolder(folder), summary, open_spec(model).eos_ids)
            print(f"{task} {rows[name].line(name)}", flush=True)
        lines += ["", f"### {task}", ""]
        lines.append(
            f"Reference answers of {shortest} to {longest} tokens, the end token included: the "
            f"needed canvas (1x) is {longest}."
        )
        lines += ["", *_HEAD, *(row.line(name) for name, row in rows.items())]
    return lines + _verdicts(chapter.beside, measured)


def _verdicts(
    beside: Mapping[str, Sequence[str]], measured: Mapping[str, Mapping[str, Row]]
) -> list[str]:
    """What each method changes, on the same samples, against the simpler ones."""
    lines = []
    for name, others in beside.items():
        for other in others:
            found = [
                _difference(task, rows[name], rows[other])
                for task, rows in measured.items()
                if name in rows and other in rows
            ]
            if found:
                lines.append(f"- **{name}** beside {other}: {'; '.join(found)}.")
    if not lines:
        return []
    return [
        "",
        "Beside the simpler one (p: McNemar, not adjusted for the number of rows):",
        "",
        *lines,
    ]


def _difference(task: str, ours: Row, theirs: Row) -> str:
    gain = ours.metrics["accuracy"] - theirs.metrics["accuracy"]
    forwards = ours.metrics["nfe"] / theirs.metrics["nfe"]
    p = mcnemar(ours.grades, theirs.grades)
    return f"{task} accuracy {gain:+.3f} (p {p:.2g}), {forwards:.2f} times the forwards"
