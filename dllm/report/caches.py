"""The embedded task decoded under every cache: what each saves and what it changes.

Each cell is two ordinary runs (same folders, same resume as `scripts.run`): one for the figures,
one audited, whose time counts the cache-free forwards and is not shown.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dllm.config import compose
from dllm.runs.execute import execute


SAMPLERS: dict[str, list[str]] = {
    "low_confidence": ["sampler=low_confidence"],
    "threshold 0.9": ["sampler=threshold"],
    "localleap": ["sampler=localleap"],
}
CACHES: dict[str, list[str]] = {
    "none": ["cache=none"],
    "prefix": ["cache=prefix"],
    "dual": ["cache=dual"],
    "vicinity": ["cache=vicinity", "cache.prefix_look=4", "cache.after_look=4"],
    "dkv": ["cache=dkv", "cache.refresh_every=4"],
    "dllm_cache": ["cache=dllm_cache", "cache.prompt_interval=16"],
    "d2cache": ["cache=d2cache", "cache.current_k=8", "cache.inflate_w=4"],
    "window": ["cache=window", "cache.outer_window=16", "cache.refresh_cycle=8"],
}
"""Cache, scaled to answers of 32 tokens, -> options of `scripts.run`."""
_RUN = ["tracker=none", "progress=false", "trace=false", "baseline=false"]
_BLOCKS = ["gen_length=32", "sampler.region.block_length=8"]

Metrics = Mapping[str, Any]


def caches(output: Path, limit: int, tasks: Sequence[str] = ()) -> None:
    """Decodes what is missing and writes the page."""
    lines = [
        "# Caches on the embedded tasks",
        "",
        f"`python -m scripts.report embedded caches --limit {limit}`: tiny-llada, float32 on the",
        "CPU, gen_length 32, blocks of 8, batch 8, seed 0. Accuracy is exact match with a 95 %",
        "Wilson interval; NFE the forwards per sample by kind; rows the query positions computed",
        "per token before the end token; ms the wall time per such token; stale the share of the",
        "attended slots whose own token had changed since they were computed (0 does not mean",
        "exact: a slot also ages with its context); KL and changed come from an audited run that",
        "repeats every step without a cache: mean divergence in nats, share of the decisions that",
        "would have been others.",
        "",
        "On a model of this size a cached step costs about what a whole one does: rows, not ms,",
        "carry over to large models (`python -m scripts.bench caches`).",
    ]
    for task in tasks or ("listops", "arithmetic"):
        lines += ["", f"## {task}"]
        for name, sampler in SAMPLERS.items():
            lines += ["", f"### {name}", "", *_HEAD]
            for cache, options in CACHES.items():
                run = [f"task={task}", f"limit={limit}", *_RUN, *_BLOCKS, *sampler, *options]
                metrics = _metrics(run)
                audited = metrics if cache == "none" else _metrics([*run, "cache.audit=true"])
                lines.append(_row(cache, metrics, audited))
                print(f"{task}: {name}: {lines[-1]}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


_HEAD = [
    "| cache | accuracy | NFE | rows | ms | stale | KL | changed |",
    "|---|---|---|---|---|---|---|---|",
]


def _metrics(options: Sequence[str]) -> Metrics:
    chosen = next(option for option in options if option.startswith("sampler="))
    _, summary = execute(compose(options), chosen.removeprefix("sampler="))
    return summary["metrics"]


def _row(cache: str, metrics: Metrics, audited: Metrics) -> str:
    kinds = ", ".join(f"{kind} {count:.1f}" for kind, count in metrics["nfe_by_kind"].items())
    found = ("", "", "")
    if audited["audited"]:
        found = (
            f"{100 * metrics['stale_share']:.1f} %",
            f"{audited['audit_kl']:.1e}",
            f"{100 * audited['audit_changed']:.1f} %",
        )
    interval = f"{metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f}"
    cells = (
        cache,
        f"{metrics['accuracy']:.3f} ({interval})",
        f"{metrics['nfe']:.1f} ({kinds})",
        f"{metrics['rows_per_token']:.1f}",
        f"{1e3 / metrics['tokens_per_second']:.1f}",
        *found,
    )
    return "| " + " | ".join(cells) + " |"
