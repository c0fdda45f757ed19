"""Replays recorded behaviour and compares: tokens, forwards, commits per step, logits, or which
partial texts a grammar can complete, or the scores of made-up outputs.

python -m scripts.conform ../shared/golden/traces/localleap.json
python -m scripts.conform tests/golden/traces/*.json --checkpoints tests/golden/models
python -m scripts.conform --numerics ../shared/golden/models/llada
python -m scripts.conform parallelbench.json --data ../shared/data/parallelbench
"""

import argparse
import sys
from pathlib import Path

from dllm.errors import ConfigError


CHECKPOINTS = (Path("tests/golden/models"), Path("../shared/golden/models"))
DATA = Path("../shared/data/parallelbench")


def main(arguments: list[str] | None = None) -> int:
    """0: all passed or skipped; 1: a difference; 2: something in the command to mend."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.conform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="recorded traces")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        type=Path,
        metavar="DIR",
        default=[],
        help="folders searched first for a trace's checkpoint; then "
        + " and ".join(map(str, CHECKPOINTS)),
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help=f"the benchmark's files behind recorded grades ({DATA})",
    )
    parser.add_argument(
        "--numerics", nargs="+", type=Path, metavar="DIR", default=[], help="model folders"
    )
    options = parser.parse_args(arguments)
    if not options.files and not options.numerics:
        parser.error("name trace files or --numerics folders")
    try:
        return _run(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from dllm.conform import completions, grades, traces  # torch, not needed for --help

    counts: dict[str, int] = dict.fromkeys(("passed", "failed", "skipped"), 0)
    if options.files:
        from dllm.conform.methods import METHODS

        for path in options.files:
            method = traces.method_of(path)
            if method == completions.METHOD:
                result = completions.check(path)
            elif method == grades.METHOD:
                result = grades.check(path, options.data)
            else:
                beside = path.parent.parent / "models"
                result = traces.check(path, METHODS, [*options.checkpoints, *CHECKPOINTS, beside])
            counts[result.verdict] += 1
            print(result.line(), flush=True)
    if options.numerics:
        from dllm.conform import numerics

        folders = [folder for folder in options.numerics if numerics.is_numerics_folder(folder)]
        if not folders:
            raise ConfigError(f"no numerics.json in {', '.join(map(str, options.numerics))}")
        for folder in folders:
            calls = numerics.check(folder)
            wrong = [call for call in calls if not call.passed]
            counts["failed" if wrong else "passed"] += 1
            shown = "; ".join(f"{c.name}: off by {c.max_abs_difference:.2e}" for c in wrong[:1])
            word = "FAIL" if wrong else "ok  "
            good = len(calls) - len(wrong)
            print(f"{word} {folder}: {good}/{len(calls)} calls{shown and '; ' + shown}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
