"""Tables made from results.

python -m scripts.report published              # figures of the papers, all methods
python -m scripts.report published localleap    # those of one file in results/published
python -m scripts.report embedded confidence    # decode the embedded tasks with every rule
python -m scripts.report embedded blocks        # with adaptive blocks and growing canvases
python -m scripts.report embedded caches        # ... under every cache
python -m scripts.report embedded learned       # learned and lossless methods beside the oracle
"""

import argparse
import sys
from pathlib import Path

from dllm.errors import ConfigError


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
    published.add_argument("--folder", type=Path, default=Path("results/published"))
    embedded = commands.add_parser("embedded", help="measure the embedded tasks")
    embedded.add_argument("suite", choices=["confidence", "blocks", "caches", "learned"])
    embedded.add_argument("--limit", type=int, default=200, help="samples per task")
    embedded.add_argument("--samplers", nargs="+", default=[], metavar="CASE", help="only these")
    embedded.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these")
    embedded.add_argument("--output", type=Path, default=None, help="Markdown file")
    options = parser.parse_args(arguments)
    try:
        return {"published": _published, "embedded": _embedded}[options.command](options)
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


def _embedded(options: argparse.Namespace) -> int:
    output = options.output or Path(f"results/embedded/{options.suite}.md")
    if options.suite == "blocks":
        from dllm.report.blocks import blocks  # torch, not needed for --help

        blocks(output, options.limit, options.samplers, options.tasks)
        return 0
    if options.suite == "caches":
        from dllm.report.caches import caches  # torch, not needed for --help

        caches(output, options.limit, options.samplers, options.tasks)
        return 0
    if options.suite == "learned":
        from dllm.report.learned import learned

        learned(output, options.limit)
        return 0
    from dllm.report.embedded import confidence

    confidence(output, options.limit, options.samplers, options.tasks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
