"""Grade texts made anywhere: `python -m scripts.grade task=gsm8k outputs=answers.jsonl`.

Exit code 0: graded; 2: something in the command or its files to mend.
"""

import sys

import hydra
from omegaconf import DictConfig

from scripts.command_line import COMMAND


@hydra.main(config_path="../conf", config_name="grade", version_base="1.3")
def job(config: DictConfig) -> None:
    with COMMAND.job():
        grade(config)


def grade(config: DictConfig) -> None:
    """Prints one line per kind and, of several kinds, one over all."""
    from pathlib import Path

    from dllm.config import build, check_complete, check_options
    from dllm.tasks.outputs import Tally, grade_file

    check_options(config, "grade")
    check_complete(config)
    grades, without = grade_file(build(config.task, "task"), Path(config.outputs))
    for kind, found in sorted(grades.items()):
        print(f"{kind}: {Tally.of(found).line()}")
    if len(grades) > 1:
        print(f"all: {Tally.of([one for found in grades.values() for one in found]).line()}")
    if without:
        print(f"{without} samples of the task have no output and are not counted")


def main() -> None:
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()
