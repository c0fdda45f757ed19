"""Trains an embedded model: `python -m scripts.train model=tiny-llada`.

The same command after a kill goes on where the last saved state was (every few minutes).
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    from pathlib import Path

    import torch
    from hydra.utils import instantiate
    from tokenizers import Tokenizer

    from dllm.training.metric_log import MetricLog
    from dllm.training.sft import Trainer

    torch.set_num_threads(cfg.threads)
    output = Path(cfg.output)
    trainer = Trainer(
        instantiate(cfg.training.spec, _convert_="all"),
        Tokenizer.from_file(cfg.tokenizer),
        instantiate(cfg.training.recipe, _convert_="all"),
        output,
    )
    resumed = trainer.resume()
    print(f"{'resumed at' if resumed else 'starting at'} step {trainer.done}", flush=True)
    trainer.run(MetricLog(output / "metrics.jsonl"))


if __name__ == "__main__":
    main()
