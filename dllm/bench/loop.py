"""What the loop costs: decoding against the bare forwards that the same decoding made.

Both sides compute the same logits from the same tokens; the difference is everything but the model:
canvas, plan, masks, row lookup, rule, trace.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig

from dllm import config as configuration
from dllm.bench.ratio import Ratio, alternate
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.models.hub import open_model
from dllm.models.transformer import Transformer
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy


def measure(config: DictConfig, samples: int = 8, repeats: int = 7) -> tuple[Ratio, int]:
    """Decode time over forward time, and the number of forwards in one repetition."""
    model, tokenizer = open_model(config.model)
    decoder = Decoder(
        Predictor(model),
        configuration.build(config.sampler, "sampler"),
        configuration.build(config.cache, "cache"),
        EosPolicy(config.eos),
        record=True,
    )
    task = configuration.build(config.task, "task")
    prompts = [
        Prompt(sample.id, tuple(tokenizer.chat(sample.prompt)), config.gen_length)
        for sample in task.samples("test", samples, config.seed)
    ]
    with _recorded(model) as calls:
        list(decoder.decode(prompts))

    def forwards() -> None:
        with torch.inference_mode():
            for method, arguments in calls:
                method(*arguments)

    ratio = alternate(lambda: list(decoder.decode(prompts)), forwards, repeats)
    return ratio, sum(method == model.hidden for method, _ in calls)


@contextmanager
def _recorded(model: Transformer) -> Iterator[list[tuple[Any, tuple[Any, ...]]]]:
    """Collects every call of the model's two forward methods with its arguments."""
    calls: list[tuple[Any, tuple[Any, ...]]] = []
    hidden, logits = model.hidden, model.logits

    def spy(method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append((method, arguments))
            return method(*arguments)

        return call

    model.hidden, model.logits = spy(hidden), spy(logits)  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del model.hidden, model.logits
