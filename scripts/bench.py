"""Performance figures as ratios: `python -m scripts.bench loop|memory|imports|samplers|caches|
constraints [key=value ...]`.

Every figure compares two sides in one process on one machine; single absolute times depend on the
machine and are printed for orientation only. Options after the name are those of `scripts.run`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from dllm.errors import ConfigError
from scripts.command_line import COMMAND


def loop(overrides: Sequence[str]) -> None:
    from dllm.bench import loop as bench
    from dllm.config import compose

    config = compose([*overrides, "tracker=none"])
    ratio, forwards = bench.measure(config)
    print(
        f"loop: batch 1, {forwards} forwards, decode {ratio.ours / forwards * 1e3:.3f} ms, forward "
        f"{ratio.reference / forwards * 1e3:.3f} ms per step"
    )
    print(
        f"loop: own time {100 * (ratio.ratio - 1):.1f} % of the forward "
        f"(pairs from {100 * (ratio.low - 1):.1f} to {100 * (ratio.high - 1):.1f} %)"
    )


def memory(overrides: Sequence[str]) -> None:
    from dllm.bench import memory as bench
    from dllm.config import compose

    peak = bench.measure(compose([*overrides, "tracker=none"]))
    print(
        f"memory: vocabulary {bench.LLADA_VOCABULARY}: largest tensor {peak.largest_mib:.1f} MiB; "
        f"block logits {peak.block_mib:.1f} MiB, a [canvas, vocabulary] tensor would be "
        f"{peak.canvas_mib:.1f} MiB"
    )


def imports(overrides: Sequence[str]) -> None:
    from dllm.bench import imports as bench

    for modules in ("dllm", "dllm.engine.loop, samplers.localleap", "dllm.runs.execute"):
        ratio = bench.measure(modules)
        print(
            f"imports: {modules}: {ratio.ours - ratio.reference:.2f} s beyond torch's "
            f"{ratio.reference:.2f} s"
        )


def samplers(overrides: Sequence[str]) -> None:
    """Overrides name samplers; none = all of conf/sampler."""
    from dllm.bench import samplers as bench
    from dllm.config import choices

    repeats = 15
    known = choices("sampler")
    if unknown := [name for name in overrides if name not in known]:
        raise ConfigError(f"{unknown[0]} is no sampler; there are {', '.join(known)}")
    rows = list(bench.measure(overrides or known, repeats))
    print(bench.table(rows, repeats), end="")


def caches(overrides: Sequence[str]) -> None:
    from dllm.bench import caches as bench

    for cost in bench.measure():
        full, growth = cost.against_full, cost.growth
        print(
            f"caches: {cost.name}: step {full.reference * 1e3:.0f} ms, {full.ratio:.1f}x cheaper "
            f"than the whole canvas (pairs from {full.low:.1f} to {full.high:.1f}); from "
            f"generation 512 to 2,048 it grows by {100 * (growth.ratio - 1):.0f} % "
            f"(pairs from {100 * (growth.low - 1):.0f} to {100 * (growth.high - 1):.0f} %)",
            flush=True,
        )


def constraints(overrides: Sequence[str]) -> None:
    from dllm.bench import constraints as bench

    for order in ("blocks", "anywhere"):
        timing = bench.measure(order)
        print(
            f"constraints: JSON, vocabulary {bench.VOCABULARY}, canvas {bench.CANVAS}, {order}: "
            f"{timing.proposals} checks: median {timing.median * 1e3:.3f} ms, p99 "
            f"{timing.p99 * 1e3:.2f} ms, mean {timing.mean * 1e3:.3f} ms; "
            f"with nothing known beforehand median {timing.full_median * 1e3:.2f} ms, mean "
            f"{timing.full * 1e3:.2f} ms: {timing.full_median / timing.median:.0f}x the median, "
            f"{timing.full / timing.mean:.1f}x the mean, of which "
            f"{timing.collection * 1e3:.3f} ms are the garbage collector's",
            flush=True,
        )


BENCHES: dict[str, Callable[[Sequence[str]], None]] = {
    "loop": loop,
    "memory": memory,
    "imports": imports,
    "samplers": samplers,
    "caches": caches,
    "constraints": constraints,
}


OPTIONLESS = ("imports", "caches", "constraints")
"""What they measure is fixed."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    return COMMAND.plain(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.bench in OPTIONLESS and arguments.overrides:
        raise ConfigError(f"{arguments.overrides[0]}: {arguments.bench} takes no options")
    BENCHES[arguments.bench](arguments.overrides)


if __name__ == "__main__":
    sys.exit(main())
