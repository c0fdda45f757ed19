"""Random compositions of model, sampler, parts, cache, constraint and circumstances.

    python -m scripts.fuzz --n 2000 --seed 1

Each decodes within the invariants (no mask left, tokens of the vocabulary, nothing committed twice,
a bounded number of forwards, equal when repeated, in another batch size and in another order) or is
refused before a model is loaded, in one line that names the options. Exit code 1 where one does
neither; the line gives its options.
"""

import argparse
import re
import sys
import time
from collections import Counter

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser


def main() -> int:
    parser = Parser(prog="python -m scripts.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, required=True, help="compositions, >= 1")
    parser.add_argument("--seed", type=int, required=True, help="of the draws")
    parser.add_argument("--reasons", action="store_true", help="show why cases were refused")
    options = parser.parse_args()
    return COMMAND.plain(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from dllm.bench.fuzz import fuzz  # torch, not needed for --help

    if options.n < 1:
        raise ConfigError(f"--n {options.n} must be >= 1")
    began, decoded, failed = time.perf_counter(), 0, 0
    reasons: Counter[str] = Counter()
    for number, (case, reason, problem) in enumerate(fuzz(options.n, options.seed)):
        if problem is not None:
            failed += 1
            print(f"case {number}: {case.options}: {problem}", flush=True)
        elif reason is None:
            decoded += 1
        else:
            reasons[re.sub(r"[\d.]+", "N", reason)] += 1
    if options.reasons:
        for reason, count in reasons.most_common():
            print(f"{count:5}  {reason}")
    print(
        f"{options.n} compositions (seed {options.seed}): {decoded} decoded, "
        f"{reasons.total()} refused for {len(reasons)} reasons, {failed} wrong; "
        f"{time.perf_counter() - began:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
