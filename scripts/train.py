"""Train an embedded model: `python -m scripts.train model=tiny-llada`.

The same command after a kill goes on where the last saved state was. With `export=FOLDER` it trains
nothing and writes the saved state there as a checkpoint with its model card.
"""

import sys

import hydra
from omegaconf import DictConfig

from dllm.errors import ConfigError, RunError
from scripts.command_line import CommandLine


COMMAND = CommandLine()


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def job(config: DictConfig) -> None:
    COMMAND.started()
    from dllm.training.execute import execute  # torch, not needed for --help

    try:
        execute(config)
    except (ConfigError, RunError) as error:
        COMMAND.failed(2 if isinstance(error, ConfigError) else 1, str(error))


def main() -> None:
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()
