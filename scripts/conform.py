"""Replays recorded behaviour and compares: tokens, forwards, commits per step, logits, or which
partial texts a grammar can complete, or the scores of made-up outputs.

A trace's checkpoint is the one in --checkpoints, else the one beside it (../models), else the one
in a default folder; two that differ are refused.

python -m scripts.conform ../shared/golden/traces/localleap.json
python -m scripts.conform tests/golden/traces/*.json --checkpoints tests/golden/models
python -m scripts.conform --numerics ../shared/golden/models/llada
python -m scripts.conform parallelbench.json --data ../shared/data/parallelbench
"""

import argparse
import sys
from itertools import chain
from pathlib import Path

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser, user_path


CHECKPOINTS = (Path("tests/golden/models"), Path("../shared/golden/models"))
DATA = Path("../shared/data/parallelbench")


def main(arguments: list[str] | None = None) -> int:
    """0: all passed or skipped; 1: a difference; 2: something in the command to mend."""
    parser = Parser(
        prog="python -m scripts.conform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=user_path, metavar="FILE", help="recorded files")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        type=user_path,
        metavar="DIR",
        default=[],
        help="folders of checkpoints; default: beside the trace, then "
        + " and ".join(map(str, CHECKPOINTS)),
    )
    parser.add_argument(
        "--data",
        type=user_path,
        default=DATA,
        metavar="DIR",
        help=f"the benchmark's files behind recorded grades ({DATA})",
    )
    parser.add_argument(
        "--numerics", nargs="+", type=user_path, metavar="DIR", default=[], help="model folders"
    )
    parser.add_argument("--device", default="cpu", help="where traces decode: cpu, cuda, cuda:N")
    options = parser.parse_args(arguments)
    if not options.files and not options.numerics:
        parser.error("name recorded files or --numerics folders")
    return COMMAND.plain(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from dllm.conform import numerics, recorded, replay  # torch, not needed for --help
    from dllm.models.placement import unavailable

    if options.device == "auto" or unavailable(options.device) is not None:
        raise ConfigError(f"--device {options.device} is no device here; use cpu, cuda or cuda:N")
    for folder in options.checkpoints:
        if not folder.is_dir():
            raise ConfigError(f"--checkpoints {folder}: no such folder")
    files = [recorded.read(path) for path in options.files]
    folders = [folder for folder in options.numerics if numerics.is_numerics_folder(folder)]
    if options.numerics and not folders:
        raise ConfigError(f"no {numerics.CALLS} in {', '.join(map(str, options.numerics))}")
    places = recorded.Places(tuple(options.checkpoints), CHECKPOINTS, options.data, options.device)
    results = chain(
        (replay.check(file, places) for file in files),
        (numerics.compare(folder) for folder in folders),
    )
    counts = dict.fromkeys(recorded.Verdict, 0)
    for result in results:
        counts[result.verdict] += 1
        print(result.line(), flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts[recorded.Verdict.FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
