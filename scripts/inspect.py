"""What a model is, how much memory it takes and what it can be combined with. Needs no weights.

python -m scripts.inspect model=llada-8b-instruct
python -m scripts.inspect model=checkpoint model.path=FOLDER model.dtype=float16
"""

import sys

import hydra
from omegaconf import DictConfig

from dllm.errors import ConfigError
from scripts.command_line import COMMAND


@hydra.main(config_path="../conf", config_name="inspect", version_base="1.3")
def job(config: DictConfig) -> None:
    COMMAND.started()
    from dllm.config import build
    from dllm.report.card import describe  # torch, not needed for --help

    try:
        options = build(config.model, "model")
        lines = list(describe(options, config.batches, config.lengths, config.rows))
    except ConfigError as error:
        COMMAND.failed(2, str(error))
    else:
        print("\n".join(lines))


def main() -> None:
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()
