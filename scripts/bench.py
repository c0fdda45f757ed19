"""Performance figures as ratios: `python -m scripts.bench loop|memory|imports|samplers|caches|
constraints|naive|forward [key=value ...]`.

Every figure compares two sides in one process on one machine; single absolute times depend on the
machine and are printed for orientation only. Options after the name are those of `scripts.run`;
samplers takes names of samplers, naive names of its models (tiny-llada, 8x512).
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


def naive(overrides: Sequence[str]) -> None:
    """Overrides name models; none = both."""
    from dllm.bench import naive as bench

    if unknown := [name for name in overrides if name not in bench.MODELS]:
        raise ConfigError(f"{unknown[0]} is not one of {', '.join(bench.MODELS)}")
    for name in overrides or bench.MODELS:
        model, prompts = bench.MODELS[name]()
        for found in bench.measure(model, prompts):
            t = found.timing
            print(
                f"naive: {name}: {found.name}: same tokens in {found.forwards} forwards; "
                f"the engine is {t.ratio:.2f}x faster (pairs from {t.low:.2f} to {t.high:.2f}), "
                f"{t.reference / found.forwards * 1e3:.2f} ms per forward",
                flush=True,
            )


def forward(overrides: Sequence[str], device: str = "cpu") -> None:
    from dllm.bench import forward as bench

    for speed in bench.measure(device):
        t = speed.timing
        print(
            f"forward: {device} {str(speed.dtype).removeprefix('torch.')}, {speed.rows} rows: "
            f"{100 / t.ratio:.0f} % of its products' speed (pairs from {100 / t.high:.0f} to "
            f"{100 / t.low:.0f} %); products {speed.flops / t.reference / 1e9:.0f} GFLOP/s, "
            f"weights at {speed.bytes / t.ours / 1e9:.1f} GB/s, "
            f"{speed.rows / t.ours:.0f} rows/s",
            flush=True,
        )


BENCHES: dict[str, Callable[[Sequence[str]], None]] = {
    "loop": loop,
    "memory": memory,
    "imports": imports,
    "samplers": samplers,
    "caches": caches,
    "constraints": constraints,
    "naive": naive,
    "forward": forward,
}


OPTIONLESS = ("imports", "caches", "constraints", "forward")
"""What they measure is fixed."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", choices=sorted(BENCHES))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="of forward: cuda = LLaDA-8B's shape on a GPU"
    )
    arguments = parser.parse_args()
    return COMMAND.plain(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.bench in OPTIONLESS and arguments.overrides:
        raise ConfigError(f"{arguments.overrides[0]}: {arguments.bench} takes no options")
    if arguments.device is None:
        return BENCHES[arguments.bench](arguments.overrides)
    if arguments.bench != "forward":
        raise ConfigError(f"--device={arguments.device}: {arguments.bench} runs on the CPU")
    forward(arguments.overrides, arguments.device)


if __name__ == "__main__":
    sys.exit(main())
