"""Samplers under caches on the embedded tasks: what each cache saves, and what it changes.

Each cell is two ordinary runs (same folders, same resume as `scripts.run`): one for the figures
and, where the cache is approximate, one audited, whose time counts the cache-free forwards and is
not shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions, checkpoint_folder
from dllm.runs.execute import execute


Options = Sequence[str]
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Chapter:
    """A matrix of samplers and caches on one model."""

    title: str
    text: str
    model: Options
    samplers: Mapping[str, Options]
    caches: Mapping[str, Options]
    """Every sampler meets all of them."""
    pairs: Mapping[tuple[str, str], Options]
    """(sampler, cache) that go together only."""
    run: Options = ()

    def cases(self) -> Iterator[tuple[str, str, list[str]]]:
        """Sampler, cache and their options, sampler by sampler."""
        for name, sampler in self.samplers.items():
            for cache, options in self.caches.items():
                yield name, cache, [*sampler, *self.model, *self.run, *options]
        for (name, cache), options in self.pairs.items():
            yield name, cache, [*options, *self.model, *self.run]


_NONE = {"none": ["cache=none"]}
_WINDOW = ["cache=window", "cache.outer_window=16", "cache.refresh_cycle=8"]
_ACTIVE = "sampler.active=8"
_BLOCKS = "sampler.region.block_length=8"
_ONE = ["sampler/region=streaming", "sampler.region.window=1", "eos=cut"]

CHAPTERS: dict[str, Chapter] = {
    "full": Chapter(
        "tiny-llada: full attention, where every cache is approximate",
        "Blocks of 8; the caches' windows are scaled to answers of 32 tokens. Window-Diffusion's "
        "two presets (sampler and cache) decode without blocks, the first masks or those of the "
        "refresh; `certainty_prior` is the ranking that belongs to d2Cache.",
        ["model=tiny-llada"],
        {
            "low_confidence": ["sampler=low_confidence", _BLOCKS],
            "threshold 0.9": ["sampler=threshold", _BLOCKS],
            "localleap": ["sampler=localleap", _BLOCKS],
        },
        {
            **_NONE,
            "prefix": ["cache=prefix"],
            "dual": ["cache=dual"],
            "vicinity": [
                "cache=vicinity",
                "cache.prefix_look=4",
                "cache.after_look=4",
                "cache.warmup_steps=1",
            ],
            "dkv": ["cache=dkv", "cache.refresh_every=4"],
            "dllm_cache": ["cache=dllm_cache", "cache.prompt_interval=16"],
            "d2cache": ["cache=d2cache", "cache.current_k=8", "cache.inflate_w=4"],
            "window": _WINDOW,
        },
        {
            ("window", "none"): ["sampler=window", _ACTIVE, "sampler.refresh_cycle=8"],
            ("window", "window"): ["sampler=window", _ACTIVE, *_WINDOW],
            ("window_dream", "window_dream"): [
                "sampler=window_dream",
                _ACTIVE,
                "cache=window_dream",
                "cache.outer_window=16",
                "cache.refresh_cycle=8",
            ],
            ("certainty_prior", "none"): ["sampler=certainty_prior"],
            ("certainty_prior", "d2cache"): [
                "sampler=certainty_prior",
                "cache=d2cache",
                "cache.current_k=8",
            ],
        },
    ),
    "blocks": Chapter(
        "tiny-sdar: block-causal attention, an exact cache",
        "The model's blocks of 8. The schedules of the same cache differ in the forwards that "
        "store a finished block: one of its own (SDAR), one before the next block (TDAR), none.",
        ["model=tiny-sdar"],
        {
            "static, one token per step": ["sampler=sdar", "sampler.mode=static"],
            "dynamic 0.9": ["sampler=sdar", "sampler.threshold=0.9"],
        },
        {
            **_NONE,
            "block (SDAR)": ["cache=block"],
            "block (TDAR)": ["cache=block", "cache.prefill=shared", "cache.commit=before_next"],
            "block (merged)": ["cache=block", "cache.prefill=merged", "cache.commit=merged"],
        },
        {},
    ),
    "causal": Chapter(
        "tiny-wedlm: causal attention, streaming with an exact cache",
        "Plain autoregressive decoding reads the same weights' next-token predictions "
        "(`model=tiny-wedlm-ar`); all others fill masks. Streaming slides a window of 16 behind "
        "the first mask, block decoding completes blocks of 8 and does not stop at the end token. "
        "p_cache of the paper is the reciprocal of the rows, less the prompt.",
        ["model=tiny-wedlm"],
        {
            "one mask, left to right": ["sampler=left_to_right", *_ONE],
            "streaming, one token per step": ["sampler=wedlm", "sampler.entropy_threshold=null"],
            "streaming, entropy 0.4": ["sampler=wedlm"],
            "streaming, entropy 0.4, refill after the commit": [
                "sampler=wedlm",
                "sampler.refill=after_commit",
            ],
            "streaming, confidence 0.9": [
                "sampler=threshold",
                "sampler/region=streaming",
                "eos=cut",
            ],
            "blocks, one token per step": ["sampler=wedlm_block", "sampler.threshold=1", _BLOCKS],
            "blocks, confidence 0.9": ["sampler=wedlm_block", "sampler.threshold=0.9", _BLOCKS],
        },
        {**_NONE, "causal": ["cache=causal"]},
        {},
    ),
    "next token": Chapter(
        "tiny-wedlm, autoregressive",
        "The control of the matrix above: the next token from the last one's row.",
        ["model=tiny-wedlm-ar"],
        {"next token": ["sampler=left_to_right", *_ONE]},
        {**_NONE, "causal": ["cache=causal"]},
        {},
    ),
}
TASKS = ("listops", "json")
_RUN = ["tracker=none", "progress=false", "trace=false", "baseline=false"]


def caches(
    output: Path,
    limit: int,
    only: Sequence[str] = (),
    tasks: Sequence[str] = (),
    chapters: Mapping[str, Chapter] = CHAPTERS,
    run: Options = (),
) -> None:
    """Decodes what is missing and writes the page; `only` names samplers, `run` adds options."""
    known = {name for chapter in chapters.values() for name, _, _ in chapter.cases()}
    for name in only:
        if name not in known:
            raise ConfigError(f"--samplers {name!r} is not one of {', '.join(sorted(known))}")
    lines = [
        "# Caches on the embedded tasks",
        "",
        f"`python -m scripts.report embedded caches --limit {limit}`: float32 on the CPU,",
        "gen_length 32, batch 8, seed 0. Accuracy is exact match with a 95 % Wilson interval; NFE",
        "the forwards per sample by kind; rows the query positions computed per token before the",
        "end token; ms the wall time per such token (other work on the machine shows here); stale",
        "the share of the attended slots whose own token had changed since they were computed (0",
        "does not mean exact: a slot also ages with its context); KL and changed come from an",
        "audited run that repeats every step without a cache: mean divergence in nats, share of",
        "the decisions that would have been others. An exact cache has nothing to audit.",
        "",
        "On models of this size a cached step costs about what a whole one does: rows, not ms,",
        "carry over to large models (`python -m scripts.bench caches`).",
    ]
    for chapter in chapters.values():
        lines += ["", f"## {chapter.title}", "", chapter.text]
        if not _trained(chapter):
            lines += ["", "These weights are not in this installation: nothing was measured."]
            continue
        for task in tasks or TASKS:
            lines += ["", f"### {task}", "", *_HEAD]
            for name, cache, options in chapter.cases():
                if only and name not in only:
                    continue
                given = [f"task={task}", f"limit={limit}", *_RUN, *options, *run]
                metrics = _metrics(given)
                audited = _metrics([*given, "cache.audit=true"]) if _audits(given) else metrics
                lines.append(row(name, cache, metrics, audited))
                print(f"{task}: {lines[-1]}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


_HEAD = [
    "| sampler | cache | accuracy | NFE | rows | ms | stale | KL | changed |",
    "|---|---|---|---|---|---|---|---|---|",
]


def _trained(chapter: Chapter) -> bool:
    model = build(compose(chapter.model).model, "model")
    assert isinstance(model, ModelOptions)
    return (checkpoint_folder(model) / "config.json").is_file()


def _audits(options: Options) -> bool:
    return "audit" in compose(options).cache


def _metrics(options: Options) -> Metrics:
    chosen = next(option for option in options if option.startswith("sampler="))
    _, summary = execute(compose(options), chosen.removeprefix("sampler="))
    return summary["metrics"]


def row(sampler: str, cache: str, metrics: Metrics, audited: Metrics) -> str:
    """One cell of the matrix as a line of the table."""
    kinds = ", ".join(f"{kind} {count:.1f}" for kind, count in metrics["nfe_by_kind"].items())
    found = ("", "")
    if audited["audited"]:
        found = (f"{audited['audit_kl']:.1e}", f"{100 * audited['audit_changed']:.1f} %")
    interval = f"{metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}"
    stale = "" if cache == "none" else f"{100 * metrics['stale_share']:.1f} %"
    per_second = metrics["tokens_per_second"]
    cells = (
        sampler,
        cache,
        f"{metrics['accuracy']:.3f} ({interval})",
        f"{metrics['nfe']:.1f} ({kinds})",
        f"{metrics['rows_per_token']:.1f}",
        f"{1e3 / per_second:.1f}" if per_second else "",
        stale,
        *found,
    )
    return "| " + " | ".join(cells) + " |"
