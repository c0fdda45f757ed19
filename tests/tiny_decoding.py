"""Models of a few thousand weights, written-down predictions and short ways to decode with both."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny_checkpoints import tiny_model

from dllm import config as configuration
from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.loading import dummy_model
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.step.canvas import Canvas, Layout, Prompt
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction
from dllm.step.sampler import Sampler


MASK, EOS = 0, 1
SPEC = ModelSpec(
    family="llada",
    vocab_size=24,
    d_model=32,
    n_layers=2,
    n_heads=2,
    n_kv_heads=2,
    head_dim=16,
    d_ff=64,
    norm_eps=1e-5,
    rope_theta=10000.0,
    max_positions=64,
    mask_id=MASK,
    eos_ids=(EOS,),
    pad_id=EOS,
    rope_fp32=True,
)
# Canvases of random tokens, no mask token.
NOISE = replace(
    tiny_model("diffusion_gemma").spec, vocab_size=24, eos_ids=(EOS,), pad_id=EOS, image_ids=()
)


def random_model(spec: ModelSpec = SPEC, seed: int = 0) -> Transformer:
    """Seeded weights, large enough that some predictions are sure and others are not."""
    model = dummy_model(spec)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.normal_(0.0, 0.7 if name.startswith("head") else 0.3, generator=generator)
            if spec.noise != "mask" and not name.startswith("embed"):
                # Each step reads the last one's logits: rounding must not grow from step to step.
                weight.mul_(0.2)
    return model


@cache
def sampler(*options: str) -> Sampler:
    """The sampler that these command-line options describe, with blocks of four."""
    config = configuration.compose(["sampler.region.block_length=4", *options])
    return configuration.build(config.sampler, "sampler")


def ragged_prompts(count: int = 9) -> list[Prompt]:
    """Mixed prompt lengths (2 to 11) and generation lengths (4, 8 and 12)."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(2, 12, (count,), generator=generator).tolist()
    return [
        Prompt(
            f"s{i}",
            tuple(torch.randint(2, SPEC.vocab_size, (length,), generator=generator).tolist()),
            (8, 4, 12)[i % 3],
        )
        for i, length in enumerate(lengths)
    ]


def decode(
    rule: Sampler, prompts: Sequence[Prompt], predictor: Any = None, **options: Any
) -> dict[str, Outcome]:
    """Outcomes by sample id."""
    predictor = predictor or Predictor(random_model())
    decoder = Decoder(predictor, rule, NoCache(), **options)
    outcomes = list(decoder.decode(prompts))
    assert len(outcomes) == len(prompts)
    return {outcome.sample_id: outcome for outcome in outcomes}


class CountingPredictor(Predictor):
    """Counts its own calls, and in how many of them each canvas row took part."""

    calls = 0
    row_calls = 0

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        self.calls += 1
        self.row_calls += int((plan.fed > 0).sum())
        return super().predict(plan, store)


class Spying(Predictor):
    """Notes the canvases that it is fed."""

    def __init__(self, model: Transformer):
        super().__init__(model)
        self.fed: list[np.ndarray] = []

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        self.fed += [row[row >= 0].numpy() for row in plan.tokens]
        return super().predict(plan, store)


@dataclass
class WrittenPredictor:
    """Predicts position i of a fixed answer with probability `sure[i]`, the rest evenly spread."""

    answer: Sequence[int]
    sure: Sequence[float]
    prompt_length: int
    spec: ModelSpec = SPEC
    model: Any = field(
        default_factory=lambda: SimpleNamespace(device=torch.device("cpu"), dtype=torch.float64)
    )

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        wanted = plan.logits_for
        assert wanted is not None
        logits = torch.zeros(*wanted.shape, self.spec.vocab_size, dtype=torch.float64)
        for entry, row in (wanted >= 0).nonzero().tolist():
            index = int(wanted[entry, row]) - self.prompt_length
            rest = (1 - self.sure[index]) / (self.spec.vocab_size - 1)
            logits[entry, row] = torch.tensor(rest).log()
            logits[entry, row, self.answer[index]] = torch.tensor(self.sure[index]).log()
        return Prediction(logits, None)


def decode_written(
    rule: Sampler, answer: Sequence[int], sure: Sequence[float] | float = 0.95, **options: Any
) -> Outcome:
    """The outcome of one sequence whose predictions are written down."""
    sure = [sure] * len(answer) if isinstance(sure, float) else sure
    prompt = Prompt("one", (5, 6, 7), len(answer))
    predictor = WrittenPredictor(answer, sure, len(prompt.tokens))
    return decode(rule, [prompt], predictor, **options)["one"]


def canvas_of(*answers: Sequence[int], prompt: tuple[int, ...] = (5, 6, 7)) -> Canvas:
    """Rows with the same prompt and the given generation regions."""
    room = max(map(len, answers)) + len(prompt)
    canvas = Canvas.empty(room, MASK, (EOS,))
    for index, answer in enumerate(answers):
        length = len(prompt) + len(answer)
        canvas.append(
            Prompt(str(index), prompt, len(answer)),
            Layout(length, length, length, 0),
            torch.Generator(),
        )
        canvas.tokens[index, len(prompt) : length] = answer
    return canvas
