"""Bits of finished runs, and the rounds that their rules need at least.

python -m scripts.bits results/runs/threshold/0123abcd results/runs/factor/4567cdef
python -m scripts.bits results/runs/latest --picture bits.png
"""

import argparse
import sys

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser, user_path, writing


def main(arguments: list[str] | None = None) -> int:
    """0: done; 2: something in the command to mend."""
    parser = Parser(
        prog="python -m scripts.bits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=user_path, metavar="RUN", help="run folders with traces"
    )
    parser.add_argument(
        "--picture", type=user_path, help="PNG: information per round, a line per run"
    )
    options = parser.parse_args(arguments)
    return COMMAND.plain(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console  # not needed for --help
    from rich.table import Table

    from dllm.metrics.bits import LIMITS
    from dllm.report.bits import RunBits, information_per_round, told_apart
    from dllm.runs.folder import RunFolder

    if options.picture is not None and options.picture.suffix != ".png":
        raise ConfigError(f"--picture {options.picture} must end with .png")
    runs = told_apart([RunBits.of(RunFolder(path)) for path in options.runs])
    table = Table("run", "n", "rounds", "bits", "effective bits", "bits/round")
    for name in ("forced", "bound", "efficiency"):
        table.add_column(name)
    scored = any(run.scored for run in runs)
    if scored:
        table.add_column("one by one")
        table.add_column("correlation")
    for run in runs:
        bounded = f"{run.forced:.2f}", f"{run.bound:.2f}", f"{run.efficiency:.2f}"
        alone = f"{run.sequential_bits:.2f}", f"{run.correlation:.2f}"
        table.add_row(
            run.label,
            str(len(run.sequences)),
            f"{run.rounds:.2f}",
            f"{run.path_bits:.2f}",
            f"{run.effective_bits:.2f}",
            f"{run.bits_per_round:.3f}",
            *(bounded if run.bounded else "---"),
            *((alone if run.scored else "--") if scored else ()),
        )
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    console.print(
        "per sequence; bound = rounds that the rule needs at least, efficiency = bound / rounds"
    )
    if scored:
        console.print(
            "one by one = bits of the same path, one token per forward; correlation = bits more"
        )
    for run in runs:
        if run.wanted is not None and run.samples < run.wanted:
            console.print(f"{run.label}: {run.samples} of {run.wanted} samples")
        if run.unscored:
            console.print(
                f"{run.label}: score_sequential=true has no bits one by one for {run.unscored} of "
                f"{len(run.sequences)} samples: their paths took tokens back, changed or moved "
                "them, or had several stages"
            )
        if run.unknown:
            console.print(f"{run.label}: {run.unknown} tokens that no forward predicted, left out")
    console.print("\n".join(LIMITS))
    if options.picture is not None:
        with writing("--picture", options.picture):
            information_per_round(runs, options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
