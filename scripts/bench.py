"""Figures of speed and memory, each a ratio of two sides that are measured in turn in one process.

python -m scripts.bench naive 8x512                  # prints a line per measurement
python -m scripts.bench batch --out results/bench    # also writes batch.md, .json, .png, .svg there
python -m scripts.bench batch --device cuda          # LLaDA-8B's shape, random weights, on a GPU

Single absolute times depend on the machine and are there for orientation: what it reaches in a
matrix product and in a copy is measured in the same run and printed beside.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser, user_path, writing


if TYPE_CHECKING:
    from dllm.bench.machine import Machine
    from dllm.bench.sheet import Sheet


def loop(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import loop as bench

    return bench.sheet(given, machine)


def selection(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import selection as bench

    return bench.sheet(machine)


def samplers(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import samplers as bench
    from dllm.config import choices

    return bench.sheet(_known(given, choices("sampler")))


def caches(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import caches as bench

    return bench.sheet(machine)


def refresh(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import refresh as bench

    return bench.sheet()


def naive(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import naive as bench

    return bench.sheet(_known(given, bench.MODELS) or list(bench.MODELS))


def forward(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import forward as bench

    return bench.sheet(machine)


def batch(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import batch as bench

    return bench.sheet(_known(given, bench.MODELS) or list(bench.MODELS), machine)


def startup(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import startup as bench

    return bench.sheet(given)


def imports(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import imports as bench

    return bench.sheet()


def memory(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import memory as bench

    return bench.sheet()


def constraints(given: Sequence[str], machine: "Machine") -> "Sheet":
    from dllm.bench import constraints as bench

    return bench.sheet()


def _known(given: Sequence[str], known: Collection[str]) -> Sequence[str]:
    """The names that were given. Raises `ConfigError` for another one."""
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(f"{unknown[0]} is not one of {', '.join(known)}")
    return given


@dataclass(frozen=True)
class Bench:
    sheet: Callable[[Sequence[str], "Machine"], "Sheet"]
    meaning: str
    takes: str | None = None
    """What may be given after the name; None = nothing."""
    gpu: bool = False
    """Whether it runs on one, too."""


BENCHES = {
    "loop": Bench(
        loop, "a step's own time beside the forward", "options of sampler, cache, eos", gpu=True
    ),
    "selection": Bench(
        selection, "scores over a large vocabulary against one plain pass", gpu=True
    ),
    "samplers": Bench(samplers, "decision time of every rule", "names of samplers"),
    "caches": Bench(caches, "a step under each cache against the whole canvas", gpu=True),
    "refresh": Bench(refresh, "a token on a long canvas against a short one"),
    "naive": Bench(naive, "the engine against the public loops", "tiny-llada, 8x512"),
    "forward": Bench(forward, "the layers against bare matrix products", gpu=True),
    "batch": Bench(batch, "ragged batches against lock-step", "tiny-llada, 8x512", gpu=True),
    "startup": Bench(startup, "from the command to the first token", "options of scripts.run"),
    "imports": Bench(imports, "import time beyond torch's"),
    "memory": Bench(memory, "peak beyond the model for every cache and vocabulary"),
    "constraints": Bench(constraints, "one check of a canvas under a grammar"),
}


def main() -> int:
    listed = [
        f"  {name:12} {bench.meaning}{f' [{bench.takes}]' if bench.takes else ''}"
        for name, bench in BENCHES.items()
    ]
    parser = Parser(
        prog="python -m scripts.bench",
        description=__doc__,
        epilog="\n".join(["benches, in brackets what may follow the name:", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", choices=BENCHES, metavar="BENCH")
    parser.add_argument("given", nargs="*", default=[], metavar="OPTION")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: of " + ", ".join(name for name, bench in BENCHES.items() if bench.gpu),
    )
    parser.add_argument(
        "--out", type=user_path, metavar="FOLDER", help="writes the page there, too"
    )
    arguments = parser.parse_intermixed_args()
    return COMMAND.plain(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    name, bench, given = arguments.bench, BENCHES[arguments.bench], arguments.given
    if given and bench.takes is None:
        raise ConfigError(f"{given[0]}: {name} takes no options")
    if arguments.device != "cpu" and not bench.gpu:
        raise ConfigError(f"--device={arguments.device}: {name} runs on the CPU")
    from dllm.bench.machine import check_device, measure
    from dllm.report.benches import check_writable, machine, write

    check_device(arguments.device)
    reached = measure(arguments.device)
    sheet = bench.sheet(given, reached)
    if arguments.out is not None:
        with writing("--out", arguments.out):
            arguments.out.mkdir(parents=True, exist_ok=True)
            check_writable(arguments.out, name)
    lines, facts, complete = [], reached.facts(), False
    try:
        for line in sheet.lines:
            lines.append(line)
            print(f"{name}: {sheet.told(line)}", flush=True)
        complete = True
    finally:  # what was measured is kept, whatever ends it: that nobody reads on, too
        made = []
        if arguments.out is not None and lines:
            command = f"python -m scripts.bench {shlex.join(sys.argv[1:])}"
            with writing("--out", arguments.out):
                made = write(arguments.out, name, command, sheet, lines, complete, facts)
        print("\n".join([f"machine: {machine(facts)}", *map(str, made)]))


if __name__ == "__main__":
    sys.exit(main())
