"""Tables made from results.

python -m scripts.report published              # figures of the papers, all methods
python -m scripts.report published localleap    # those of one file in results/published
python -m scripts.report suite confidence       # decode a suite of conf/suite, write its page
"""

import argparse
import sys
from pathlib import Path

from dllm.errors import ConfigError
from scripts.command_line import user_path


def main(arguments: list[str] | None = None) -> int:
    """0: done; 2: something in the command to mend."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    published = commands.add_parser("published", help="figures of the papers")
    published.add_argument("names", nargs="*", metavar="NAME", help="files without .yaml")
    published.add_argument("--folder", type=user_path, default=Path("results/published"))
    suite = commands.add_parser("suite", help="measure a suite of conf/suite and write its page")
    suite.add_argument("name", metavar="NAME", help="file in conf/suite without .yaml")
    suite.add_argument("--limit", type=int, help="samples per task; default: the suite's")
    suite.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="only these")
    suite.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these")
    suite.add_argument("--output", type=user_path, help="Markdown file; default: the suite's")
    options = parser.parse_args(arguments)
    try:
        return {"published": _published, "suite": _suite}[options.command](options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _published(options: argparse.Namespace) -> int:
    from rich.console import Console  # not needed for --help

    from dllm.report.published import MARKS, publications, show

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for publication in publications(options.folder, options.names):
        show(publication, console)
    console.print("marks: " + "; ".join(f"{mark} = {text}" for mark, text in MARKS.items()))
    return 0


def _suite(options: argparse.Namespace) -> int:
    from dllm.report.page import write_page  # torch, not needed for --help
    from dllm.report.suite import load_suite

    suite = load_suite(options.name)
    limit = suite.limit if options.limit is None else options.limit
    if limit < 1:
        raise ConfigError(f"--limit {limit} is not >= 1")
    print(write_page(suite, limit, options.output, options.rows, options.tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
