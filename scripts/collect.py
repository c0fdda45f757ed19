"""Collect training data for a Learn2PD filter: `python -m scripts.collect output=results/records`.

Decodes training samples twice (the model's own answer, then the oracle that imitates it) and
records confidences and labels. The same command goes on after a kill.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

import hydra
from omegaconf import DictConfig

from dllm.errors import ConfigError
from scripts.command_line import COMMAND


if TYPE_CHECKING:
    from dllm.forward.predictor import Predictor
    from dllm.models.filter import Feature
    from dllm.training.collecting import Collector
    from dllm.training.records import Record


@hydra.main(config_path="../conf", config_name="collect", version_base="1.3")
def job(config: DictConfig) -> None:
    with COMMAND.job():
        collect(config)


def collect(config: DictConfig) -> None:
    """Fills the output folder with the shards that are missing."""
    from pathlib import Path

    from dllm.config import check_complete, check_options
    from dllm.models.filter import Feature
    from dllm.runs.lock import locked_output

    check_options(config, "collect")
    check_complete(config)
    if config.feature not in get_args(Feature):
        raise ConfigError(f"feature={config.feature} is not one of {', '.join(get_args(Feature))}")
    if config.gen_length % config.block_length:
        raise ConfigError(
            f"block_length={config.block_length} does not divide gen_length={config.gen_length}"
        )
    # Two at once would record every sample twice.
    with locked_output(Path(config.output), config.wait_minutes):
        _fill(config)


def _fill(config: DictConfig) -> None:
    from pathlib import Path

    from omegaconf import OmegaConf

    from dllm.config import build
    from dllm.models.filter import model_signature
    from dllm.runs.checkpoint import Checkpoint
    from dllm.step.canvas import Prompt
    from dllm.training.records import RecordShards

    samples = build(config.task, "task").samples("train", config.limit, config.seed)
    checkpoint = Checkpoint(build(config.model, "model"))
    checkpoint.check_here()
    tokenizer = checkpoint.tokenizer
    facts = {
        "model": model_signature(checkpoint.spec),
        "checkpoint": checkpoint.contents,
        "task": OmegaConf.to_container(config.task, resolve=True),
        "seed": config.seed,
        "block_length": config.block_length,
        "gen_length": config.gen_length,
        "feature": config.feature,
        "conf_dtype": config.conf_dtype if config.conf_dtype != "model" else config.model.dtype,
    }
    shards = RecordShards(Path(config.output), facts)
    done = shards.done()
    missing = [sample for sample in samples if sample.id not in done]
    print(f"{len(done)} samples recorded, {len(missing)} to do", flush=True)
    collector = collector_of(
        checkpoint.predictor,
        config.block_length,
        config.conf_dtype,
        config.feature,
        config.batch_size,
    )
    for first in range(0, len(missing), config.shard_size):
        part = missing[first : first + config.shard_size]
        prompts = collector.references(
            [Prompt(s.id, tuple(tokenizer.chat(s.prompt)), config.gen_length) for s in part]
        )
        records, outcomes = collector.records(prompts)
        path = shards.append([sample.id for sample in part], records)
        nfe = sum(outcome.cost.nfe for outcome in outcomes) / len(outcomes)
        print(
            f"{path}: {len(part)} samples, {len(records)} records, {nfe:.1f} oracle forwards per "
            f"answer of {config.gen_length}",
            flush=True,
        )


def collector_of(
    predictor: "Predictor", block_length: int, conf_dtype: str, feature: "Feature", batch_size: int
) -> "Collector":
    """The two passes with one token per step and the oracle in blocks of `block_length`."""
    from dllm.config import build, compose
    from dllm.training.collecting import Collector, RecordingOracle

    options = [f"sampler.region.block_length={block_length}", f"sampler.conf_dtype={conf_dtype}"]
    ranked = "low_confidence" if feature == "confidence" else "entropy"
    baseline, oracle = (
        build(compose([*sampler, *options]).sampler, "sampler")
        for sampler in (
            ("sampler=low_confidence", f"sampler.remasking={ranked}"),
            ("sampler=oracle",),
        )
    )

    def recording(sink: "Callable[[Record], None]") -> RecordingOracle:
        return RecordingOracle(**vars(oracle), sink=sink, feature=feature)

    return Collector(predictor, baseline, recording, batch_size)


def main() -> None:
    sys.exit(COMMAND.run(job))


if __name__ == "__main__":
    main()
