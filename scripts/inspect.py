"""What a model is, how much memory it takes and what it can be combined with. Needs no weights.

python -m scripts.inspect model=llada-8b-instruct
python -m scripts.inspect model=checkpoint model.path=FOLDER model.dtype=float16
"""

import sys

import hydra
from omegaconf import DictConfig

from scripts.command_line import COMMAND


@hydra.main(config_path="../conf", config_name="inspect", version_base="1.3")
def job(config: DictConfig) -> None:
    with COMMAND.job():
        from dllm.config import build, check_complete, check_options
        from dllm.report.card import describe  # torch, not needed for --help

        check_options(config, "inspect")
        check_complete(config)
        options = build(config.model, "model")
        print("\n".join(describe(options, config.batches, config.lengths, config.rows)))


def main() -> None:
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()
