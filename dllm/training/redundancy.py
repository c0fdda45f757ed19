"""Redundancy-aware fine-tuning (R2-dLLM, arXiv 2604.18995): `python -m scripts.train redundancy`.

Teaches a model its own short trajectories, so that a plain threshold finds them. Everything in
this recipe is [inferred, no public code found], known are only the aim and
that checkpoints exist:
1. training prompts are decoded with the full rule set; trajectories with a correct answer are kept;
2. for a state x_t of a trajectory, cross entropy towards its final tokens, weight 1 on the
positions committed at step t (by any stage), `rest_weight` on the block's other masked positions,
0 elsewhere;
3. AdamW on all parameters, a few hundred steps; judge by plain threshold and R2 rules, before and
after.

The same command goes on after a kill.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from dllm.config import build, fingerprint
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.hub import checkpoint_folder, open_model
from dllm.models.loading import save_model
from dllm.models.transformer import Transformer
from dllm.runs.checkpoint import Checkpoint, file_hash
from dllm.runs.identity import named_files, targets
from dllm.step.canvas import Prompt
from dllm.step.eos import first_eos
from dllm.step.outcome import Outcome
from dllm.tracking.tracker import RunInfo
from dllm.training.checkpoints import Course, load_optimizer, recipe_facts, same_keys, taken_over
from dllm.training.checks import not_below
from dllm.training.metric_log import MetricLog


_MODEL = ("model.path", "model.adapter")
"""Folders of which is told on their own."""


@dataclass(frozen=True)
class RedundancyRecipe:
    trajectories: int
    """Training samples decoded."""
    iterations: int
    """Optimizer steps."""
    rows: int
    """States per optimizer step."""
    learning_rate: float
    rest_weight: float
    """Weight of the block's masked positions that the step did not commit, in [0, 1]."""
    seed: int
    save_minutes: float
    """Between saved states."""

    def __post_init__(self) -> None:
        not_below(self, "recipe", 1, "trajectories", "iterations", "rows")
        if not self.learning_rate > 0:
            raise ConfigError(f"recipe.learning_rate={self.learning_rate} must be > 0")
        not_below(self, "recipe", 0, "save_minutes")
        if not 0 <= self.rest_weight <= 1:
            raise ConfigError(f"recipe.rest_weight={self.rest_weight} is outside [0, 1]")


@dataclass(frozen=True)
class State:
    """One forward of a trajectory as a training row."""

    tokens: Int[Tensor, "canvas"]
    """What the model saw."""
    targets: Int[Tensor, "canvas"]
    """The finished sequence."""
    weights: Float[Tensor, "canvas"]


def states_of(prompt: Sequence[int], outcome: Outcome, rest_weight: float) -> list[State]:
    """Training rows of one trajectory, one per forward that committed something."""
    trace = outcome.trace
    assert trace is not None
    start, length = len(prompt), len(outcome.tokens)
    final = torch.tensor([*prompt, *outcome.tokens])
    step_of = torch.full((length,), -1)
    block_of = torch.zeros(length, dtype=torch.int64)
    for number, step in enumerate(trace.steps):
        for position in step.positions:
            if position < length:
                step_of[position], block_of[position] = number, step.block
    found = []
    for number, step in enumerate(trace.steps):
        committed = step_of == number
        if not committed.any():
            continue
        masked = step_of >= number
        tokens = final.clone()
        tokens[start:] = torch.where(masked, trace.mask_id, final[start:])
        weights = torch.zeros(start + length)
        weights[start:] = masked * (block_of == step.block) * rest_weight
        weights[start:][committed] = 1.0
        found.append(State(tokens, final, weights))
    return found


def state_loss(model: Transformer, states: Sequence[State]) -> Tensor:
    """Weighted cross entropy per unit of weight; predictions are shifted where the model's are."""
    width = max(len(state.tokens) for state in states)
    tokens = torch.full((len(states), width), model.spec.pad_id)
    targets, weights = tokens.clone(), torch.zeros(len(states), width)
    visible = torch.zeros(len(states), width, dtype=torch.bool)
    for row, state in enumerate(states):
        size = len(state.tokens)
        tokens[row, :size], targets[row, :size] = state.tokens, state.targets
        weights[row, :size], visible[row, :size] = state.weights, True
    device = model.device
    hidden = model.hidden(tokens.to(device), mask=visible[:, None, None].to(device))
    row, column = (weights > 0).nonzero(as_tuple=True)
    logits = model.logits(hidden[row, column - model.spec.logit_shift]).float()
    each = F.cross_entropy(logits, targets[row, column].to(device), reduction="none")
    weight = weights[row, column].to(device)
    return (each * weight).sum() / weight.sum()


class RedundancyTuning:
    """Collects trajectories, then trains on them; both are kept in `output` and gone on with."""

    def __init__(self, config: DictConfig):
        self.config = config
        self.recipe: RedundancyRecipe = build(config.recipe, "recipe")
        self.options = build(config.model, "model")
        self.model, self.tokenizer = open_model(self.options)
        if self.model.spec.attention != "full":
            raise ConfigError(
                f"model={config.model.name}: the recipe needs full attention, the model's is "
                f"{self.model.spec.attention}"
            )
        self.task = build(config.task, "task")
        output, parts = Path(config.output), ("sampler", "cache", "task", "gen_length")
        facts = recipe_facts(
            self.recipe,
            modules=targets(config),
            total_steps=self.recipe.iterations,
            model=Checkpoint(self.options).contents,
            files={option: file_hash(path) for option, path in named_files(config, _MODEL)},
            **{name: _plain(config)[name] for name in parts},
        )
        self.collected, self.course = Course(output / "trajectories", facts), Course(output, facts)

    def trajectories(self) -> tuple[list[State], dict[str, float]]:
        """As collected by a run before, else collected and kept."""
        if self.collected.state is None:
            states, facts = self.collect()
            rows = [(state.tokens, state.targets, state.weights) for state in states]
            self.collected.save({"rows": rows, "facts": facts, "step": 0})
        state, wanted = self.collected.state, {"kept": 0.0, "forwards": 0.0}
        assert state is not None
        with taken_over(self.collected.folder):
            rows = [State(*map(_tensor, row)) for row in state["rows"]]
            return rows, same_keys(state["facts"], wanted)

    def collect(self) -> tuple[list[State], dict[str, float]]:
        """States of the trajectories with a correct answer, and what was kept."""
        config, recipe = self.config, self.recipe
        samples = {
            sample.id: sample
            for sample in self.task.samples("train", recipe.trajectories, recipe.seed)
        }
        prompts = {
            sample.id: Prompt(
                sample.id, tuple(self.tokenizer.chat(sample.prompt)), config.gen_length
            )
            for sample in samples.values()
        }
        decoder = Decoder(
            Predictor(self.model),
            build(config.sampler, "sampler"),
            build(config.cache, "cache"),
            batch_size=config.batch_size,
            record=True,
        )
        states: list[State] = []
        kept = forwards = 0
        for outcome in decoder.decode(prompts.values()):
            end = first_eos(torch.tensor(outcome.tokens).numpy(), self.model.spec.eos_ids)
            text = self.tokenizer.decode(outcome.tokens[:end])
            if outcome.failure is None and self.task.grade(samples[outcome.sample_id], text):
                kept += 1
                forwards += outcome.cost.nfe
                tokens = prompts[outcome.sample_id].tokens
                states += states_of(tokens, outcome, recipe.rest_weight)
        if not states:
            raise ConfigError(
                f"recipe.trajectories={recipe.trajectories}: no answer was correct, nothing "
                "to learn"
            )
        return states, {"kept": kept / len(samples), "forwards": forwards / kept}

    def train(self, states: Sequence[State], log: MetricLog) -> None:
        recipe, model = self.recipe, self.model.requires_grad_(True).train()
        generator = torch.Generator().manual_seed(recipe.seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
        if (state := self.course.state) is not None:
            with taken_over(self.course.folder):
                model.load_state_dict(state["model"])
                load_optimizer(optimizer, state["optimizer"])
                generator.set_state(state["generator"])
        saved = time.monotonic()
        for iteration in range(self.course.done + 1, recipe.iterations + 1):
            chosen = torch.randint(len(states), (recipe.rows,), generator=generator).tolist()
            loss = state_loss(model, [states[number] for number in chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if iteration % 20 == 0 or iteration == recipe.iterations:
                log.log({"loss": loss.item()}, step=iteration)
            last = iteration == recipe.iterations
            if last or time.monotonic() - saved > 60 * recipe.save_minutes:
                self.course.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "generator": generator.get_state(),
                        "step": iteration,
                    }
                )
                saved = time.monotonic()
        model.requires_grad_(False).eval()


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(value)
    return value


def _plain(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def execute(config: DictConfig) -> None:
    """Writes the tuned checkpoint to `output`/model."""
    output = Path(config.output)
    started = time.perf_counter()
    tuning = RedundancyTuning(config)
    tracker = build(config.tracker, "tracker")
    tracker.start(
        RunInfo(
            output, fingerprint(config), f"train redundancy {config.model.name}", _plain(config)
        )
    )
    log = MetricLog(output / "metrics.jsonl", tracker, tuning.course.done)
    try:
        states, facts = tuning.trajectories()
        print(
            f"{len(states)} states of trajectories with {facts['forwards']:.1f} forwards on "
            f"average ({facts['kept']:.0%} of the samples were answered correctly)",
            flush=True,
        )
        tuning.train(states, log)
        tracker.summary(facts)
    finally:
        log.close()
        tracker.finish()
    save_model(tuning.model, output / "model", tuning.options.torch_dtype)
    for file in checkpoint_folder(tuning.options).glob("tokenizer*.json"):
        shutil.copy(file, output / "model" / file.name)
    print(f"{output / 'model'}: tuned in {time.perf_counter() - started:.0f} s [inferred recipe]")
