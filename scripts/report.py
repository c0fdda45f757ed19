"""Tables made from results.

python -m scripts.report RUN...                 # runs that exist, side by side: one page of HTML
python -m scripts.report results/runs/sweeps/2026-11-26_10-00-00-000000 --baseline threshold
python -m scripts.report diff RUN RUN           # in what two runs differ, the likeliest cause first
python -m scripts.report wandb --project P      # a page on Weights & Biases over a project's runs
python -m scripts.report published              # figures of the papers, all methods
python -m scripts.report published localleap    # those of one file in results/published
python -m scripts.report suite confidence       # decode a suite of conf/suite, write its page
python -m scripts.report leaderboard            # that of all samplers on the embedded tasks
python -m scripts.report docs                   # tables of docs/methods and docs/legal.md anew
python -m scripts.report counters RUN           # a run's tokens and speed as other projects count
python -m scripts.report schemas FOLDER         # compile and decode under every JSON schema there
"""

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser, user_path


if TYPE_CHECKING:
    from rich.console import Console


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: a failure on the way; 2: something in the command to mend."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = Parser(
        prog="python -m scripts.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("runs", help="runs that exist (the word may be left out)")
    runs.add_argument(
        "runs", nargs="+", type=user_path, metavar="RUN", help="folders of runs, of sweeps, or both"
    )
    runs.add_argument(
        "--baseline", help="folder, label or fingerprint of the run that all are compared with"
    )
    runs.add_argument(
        "--margin", type=float, default=0.05, help="accuracies this close may be called equal"
    )
    runs.add_argument(
        "--output",
        type=user_path,
        default=Path("results/runs/report.html"),
        help="the page; Markdown and pictures lie beside it (default: %(default)s)",
    )
    runs.add_argument("--csv", type=user_path, metavar="FILE", help="every number, a line per run")
    diff = commands.add_parser("diff", help="in what two runs differ")
    diff.add_argument("runs", nargs=2, type=user_path, metavar="RUN")
    wandb = commands.add_parser("wandb", help="a page on Weights & Biases over a project's runs")
    wandb.add_argument("--project", required=True)
    wandb.add_argument("--entity", help="default: the account's")
    published = commands.add_parser("published", help="figures of the papers")
    published.add_argument("names", nargs="*", metavar="NAME", help="files without .yaml")
    published.add_argument("--folder", type=user_path, help="default: the checkout's own")
    suite = commands.add_parser("suite", help="measure a suite of conf/suite and write its page")
    suite.add_argument("name", metavar="NAME", help="file in conf/suite without .yaml")
    leaderboard = commands.add_parser("leaderboard", help="all samplers on the embedded tasks")
    leaderboard.set_defaults(name="leaderboard")
    for page in (suite, leaderboard):
        page.add_argument("--limit", type=int, help="samples per task; default: the suite's")
        page.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="only these")
        page.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="only these")
        page.add_argument("--output", type=user_path, help="Markdown file; default: the suite's")
    commands.add_parser("docs", help="make the tables of docs/methods anew")
    counters = commands.add_parser("counters", help="a run's tokens as other projects count them")
    counters.add_argument("run", type=user_path, metavar="RUN", help="folder, results/runs/latest")
    schemas = commands.add_parser("schemas", help="which JSON schemas a constraint can follow")
    schemas.add_argument("folder", type=user_path, metavar="FOLDER")
    schemas.add_argument("options", nargs="*", metavar="key=value", help="of scripts.run")
    schemas.add_argument("--output", type=user_path, default=Path("results/embedded/schemas.md"))
    schemas.add_argument("--seconds", type=float, default=math.inf, help="stop, to go on later")
    known = {
        "runs": _runs,
        "diff": _diff,
        "wandb": _wandb,
        "published": _published,
        "suite": _suite,
        "leaderboard": _suite,
        "docs": _docs,
        "counters": _counters,
        "schemas": _schemas,
    }
    if arguments and arguments[0] not in (*known, "-h", "--help"):
        arguments = ["runs", *arguments]
    options = parser.parse_args(arguments)

    def run() -> int:
        try:
            return known[options.command](options)
        except OSError as error:
            if error.filename is None:
                raise
            raise ConfigError(f"{error.filename}: {error.strerror}") from None

    return COMMAND.plain(run)


def _runs(options: argparse.Namespace) -> int:
    from dllm.report.comparison import compare, write, write_csv  # torch, not needed for --help
    from dllm.report.existing import read_runs
    from dllm.report.groups import grouped

    if not 0 < options.margin < 1:
        raise ConfigError(f"--margin {options.margin} is outside (0, 1)")
    if options.output.suffix != ".html":
        raise ConfigError(f"--output {options.output} must end with .html")
    groups = grouped(read_runs(options.runs), options.baseline)
    command = ["python -m scripts.report", *(shlex.quote(str(path)) for path in options.runs)]
    if options.baseline is not None:
        command.append(f"--baseline {shlex.quote(options.baseline)}")
    written = write(
        compare(groups, options.margin, " ".join(command), options.output), options.output
    )
    if options.csv is not None:
        write_csv(groups, options.margin, options.csv)
        written.append(options.csv)
    print("\n".join(map(str, written)))
    return 0


def _diff(options: argparse.Namespace) -> int:
    from rich.console import Console  # torch, not needed for --help

    from dllm.report.existing import Run
    from dllm.report.recipe import agreement, differences, shown

    ours, theirs = (Run.of(path) for path in options.runs)
    console = Console(width=None if Console().is_terminal else 160)
    labels = [run.label for run in (ours, theirs)]
    if len(set(labels)) == 1:
        labels = [f"{run.label} {run.fingerprint}" for run in (ours, theirs)]
    if found := differences([ours.recipe, theirs.recipe]):
        console.print(shown(found, labels))
    else:
        console.print("same options, samples, weights, code, machine, versions")
    console.print(agreement(ours.samples, theirs.samples), highlight=False)
    return 0


def _wandb(options: argparse.Namespace) -> int:
    from dllm.report.wandb_report import publish  # wandb, not needed for --help

    print(publish(options.project, options.entity))
    return 0


def _docs(options: argparse.Namespace) -> int:
    from dllm.report import legal, manual  # torch, not needed for --help

    changed = manual.write()
    text = legal.page()
    if not legal.PAGE.exists() or legal.PAGE.read_text() != text:
        legal.PAGE.write_text(text)
        changed.append(legal.PAGE)
    print("\n".join(map(str, changed)) or "all pages are as they should be")
    return 0


def _published(options: argparse.Namespace) -> int:
    from rich.console import Console  # not needed for --help

    from dllm.report.published import FOLDER, MARKS, publications, show

    console = _wide(Console())
    for publication in publications(options.folder or FOLDER, options.names):
        show(publication, console)
    console.print("marks: " + "; ".join(f"{mark} = {text}" for mark, text in MARKS.items()))
    return 0


def _wide(console: "Console") -> "Console":
    return console if console.is_terminal else type(console)(width=160)


def _counters(options: argparse.Namespace) -> int:
    from rich.console import Console  # not needed for --help

    from dllm.report.counted import table

    _wide(Console()).print(table(options.run))
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


def _schemas(options: argparse.Namespace) -> int:
    from dllm.report.schemas import examine, in_turn, page  # torch, not needed for --help

    command = " ".join(["python -m scripts.report schemas FOLDER", *options.options])
    kept = Path("results/runs/schemas") / f"{'_'.join(options.options) or 'defaults'}.jsonl"
    found = examine(options.folder, options.options, kept, options.seconds)
    if not found:
        raise ConfigError(f"--seconds {options.seconds:g}: no schema was examined in that time")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(found, len(in_turn(options.folder)), command))
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
