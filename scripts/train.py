"""Train an embedded model: `python -m scripts.train model=tiny-llada`.

The same command after a kill goes on where the last saved state was. With `export=FOLDER` it trains
nothing and writes the saved state there as a checkpoint with its model card. A recipe named first
(`python -m scripts.train filter data=...`) trains something else: conf/train_<recipe>.yaml.
"""

import sys
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scripts.command_line import COMMAND


RECIPES = {
    "train": "dllm.training.execute",
    "train_block_extension": "dllm.training.block_extension",
    "train_drafter": "dllm.training.drafter",
    "train_filter": "dllm.training.filter",
    "train_redundancy": "dllm.training.redundancy",
}
"""Configuration -> module whose `execute` carries it out."""


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def job(config: DictConfig) -> None:
    with COMMAND.job():
        # torch is imported here: --help does not need it
        from dllm.config import check_complete, check_options
        from dllm.runs.lock import locked_output

        name = HydraConfig.get().job.config_name or "train"
        check_options(config, name)
        check_complete(config)
        with ExitStack() as held:
            if config.get("export") is None:
                held.enter_context(locked_output(Path(config.output), config.wait_minutes))
            import_module(RECIPES[name]).execute(config)


def main() -> None:
    if len(sys.argv) > 1 and f"train_{sys.argv[1]}" in RECIPES:
        sys.argv[1:2] = ["--config-name", f"train_{sys.argv[1]}"]
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()
