"""Plays back how one sample was decoded, as a page to open in a browser or in the terminal.

python -m scripts.replay results/runs/latest                    # its first sample
python -m scripts.replay RUN --sample ID
python -m scripts.replay RUN RUN2 --sample ID                   # side by side, by forward
python -m scripts.replay RUN --sample ID --terminal
python -m scripts.replay RUN --sample ID --at 4 --set sampler.threshold=0.7   # another ending

More is seen where the run was decoded with alternatives=5: what else a position might have held.
"""

import argparse
import re
import sys
from pathlib import Path

from dllm.errors import ConfigError
from scripts.command_line import COMMAND, Parser, user_path, writing


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: the recorded steps can't be repeated; 2: something in the command to mend."""
    parser = Parser(
        prog="python -m scripts.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=user_path, metavar="RUN", help="run folders, two at most"
    )
    parser.add_argument("--sample", metavar="ID", help="default: the first of the run")
    parser.add_argument(
        "--terminal", action="store_true", help="play here instead of writing a page"
    )
    parser.add_argument(
        "--speed", type=float, default=4.0, help="forwards per second in the terminal"
    )
    parser.add_argument("--at", type=int, metavar="FORWARD", help="other options from here on")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="of the sampler, or eos"
    )
    parser.add_argument("--output", type=user_path, help="HTML file; default: in the run's folder")
    options = parser.parse_args(arguments)
    return COMMAND.plain(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from dllm.report.replay.counterfactual import counterfactual  # torch, not needed for --help
    from dllm.report.replay.page import page
    from dllm.report.replay.source import Recorded, beside
    from dllm.report.replay.terminal import play

    if len(options.runs) > 2:
        raise ConfigError(f"{len(options.runs)} runs: one or two fit side by side")
    if (options.at is None) != (not options.set):
        raise ConfigError("--at FORWARD and --set OPTION=VALUE go together")
    if options.at is not None and len(options.runs) > 1:
        raise ConfigError("--at: another ending is shown beside the recorded one, of one run")
    if not options.speed > 0:
        raise ConfigError(f"--speed {options.speed} is not > 0")
    first = Recorded(options.runs[0])
    name = ""
    if options.at is None:
        films = beside(options.runs, options.sample)
        if len(films) > 1:
            second = Recorded(options.runs[1])
            name = f"-beside-{second.sampler}-{second.path.name}"
    else:
        films = counterfactual(first, options.sample, options.at, options.set)
        name = f"-at-{options.at}-{'-'.join(options.set)}"
    if options.terminal:
        from rich.console import Console

        play(films, options.speed, Console())
        return 0
    name = re.sub(r"[^\w.=-]", "_", films[0].sample + name)
    output: Path = options.output or first.path / "replay" / f"{name}.html"
    with writing("--output", output):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page(films), encoding="utf-8")
    for film in films:
        print(f"{film.title}: {len(film.frames)} forwards, {film.answer!r}")
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
