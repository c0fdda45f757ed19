"""An autoregressive model turned into a block-diffusion model by a low-rank adapter.

Block diffusion with shifted logits (Fast-dLLM v2, arXiv 2509.26328) on the model's own answers and
on generated tasks, with blocks that grow in stages (progressive block size extension, TDAR, arXiv
2602.09555). The base stays frozen. Batches are a function of seed and step, all else is in the
saved state: the same command goes on after a kill.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.adapter import Adapted, AdapterSpec, save_adapter
from dllm.models.tokenizers import Tokenizer
from dllm.models.transformer import Transformer
from dllm.runs.identity import network_hash
from dllm.tasks.base import Split
from dllm.tasks.natural import NaturalTasks
from dllm.training.batches import check_shares, check_weights
from dllm.training.checkpoints import (
    load_optimizer,
    load_state,
    recipe_facts,
    same_keys,
    save_state,
    taken_over,
)
from dllm.training.checks import not_below
from dllm.training.distill import answers
from dllm.training.shifted_blocks import BlockBatch, Row, ShiftedBlocks


@dataclass(frozen=True, kw_only=True)
class AnswerData:
    """What is trained on: the base's answers to questions of a file, and generated tasks."""

    questions: str
    """JSON lines with a key `question` (GSM8K's layout)."""
    count: int
    """Questions that the base answers."""
    longest_question: int
    """In tokens; longer ones are left out."""
    longest_answer: int
    """In tokens; answers are cut there."""
    kinds: Mapping[str, float]
    """Kind -> how often it is drawn; `questions` and the kinds of `dllm.tasks.natural`."""

    def __post_init__(self) -> None:
        not_below(self, "data", 1, "count", "longest_question", "longest_answer")
        check_weights("data.kinds", self.kinds, ("questions", *NaturalTasks().kinds))
        if not any(self.kinds.values()):
            raise ConfigError(f"data.kinds={dict(self.kinds)} leaves nothing to draw")


@dataclass(frozen=True, kw_only=True)
class Stage:
    until: float
    """Share of all steps."""
    block: int

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise ConfigError(f"until={self.until} is outside (0, 1]")
        if self.block < 1:
            raise ConfigError(f"block={self.block} must be >= 1")


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Everything that determines the adapter, and when is reported."""

    adapter: AdapterSpec
    data: AnswerData
    stages: Mapping[str, Stage]
    opening: float
    """`ShiftedBlocks.opening`."""
    total_steps: int
    lanes: int
    """Threads that share the microbatches of a step out among them."""
    micros: int
    """Microbatches per step, rows of similar length together."""
    rows: int
    """Rows per microbatch."""
    rate: float
    """Of AdamW; linear warm-up and decay."""
    warmup_steps: int
    decay: float
    """Share of the steps over which the rate falls to 0."""
    seed: int
    log_every: int
    """In steps."""
    save_minutes: float

    def __post_init__(self) -> None:
        not_below(self, "recipe", 1, "total_steps", "lanes", "micros", "rows", "log_every")
        not_below(self, "recipe", 0, "rate", "warmup_steps", "save_minutes")
        for name in ("opening", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"recipe.{name}={getattr(self, name)} is outside [0, 1]")
        check_shares(self.stages)
        largest = list(self.stages.values())[-1].block
        if largest != self.adapter.block_size:
            raise ConfigError(
                f"recipe.adapter.block_size={self.adapter.block_size} is not the last stage's "
                f"block, {largest}"
            )
        for name, stage in self.stages.items():
            if largest % stage.block:
                raise ConfigError(
                    f"recipe.stages.{name}.block={stage.block} does not divide the last stage's, "
                    f"{largest}"
                )

    def block_at(self, step: int) -> int:
        share = step / self.total_steps
        stages = list(self.stages.values())
        return next((s.block for s in stages if share < s.until), stages[-1].block)

    def factor(self, step: int) -> float:
        """Multiplier in [0, 1] of the rate at `step` (counted from 0)."""
        left = (self.total_steps - step) / max(1.0, self.decay * self.total_steps)
        return min(1.0, (step + 1) / max(1, self.warmup_steps), max(0.0, left))


class Log(Protocol):
    def log(self, metrics: Mapping[str, float], step: int) -> None: ...


class Rows:
    """Rows of one split, whole blocks of `multiple` tokens."""

    def __init__(
        self,
        base: Transformer,
        tokenizer: Tokenizer,
        data: AnswerData,
        asked: Sequence[str],
        split: Split,
        cache: Path,
        multiple: int,
    ) -> None:
        """asked: the data's questions"""
        self.tokenizer, self.data, self.multiple = tokenizer, data, multiple
        self.split: Split = split
        self.longest, self.eos = data.longest_answer, base.spec.eos_ids[0]
        self.tasks = NaturalTasks([kind for kind in data.kinds if kind != "questions"] or None)
        self.asked = asked
        self.answered = answers(base, tokenizer, self.asked, cache, self.longest, batch=128)

    def draw(self, rng: Random) -> Row:
        (kind,) = rng.choices(list(self.data.kinds), list(self.data.kinds.values()))
        if kind == "questions":
            at = rng.randrange(len(self.asked))
            return self.row(self.asked[at], self.answered[at])
        sample = self.tasks.draw_from(self.split, kind, rng)
        return self.row(sample.prompt, self.tokenizer.encode(sample.answer))

    def row(self, question: str, answer: Sequence[int]) -> Row:
        """The end token fills the last block; an answer that was cut ends with a whole block."""
        prompt = self.tokenizer.chat(question)
        ids = [*prompt, *answer]
        if len(answer) < self.longest:
            ids += [self.eos] * (self.multiple - len(ids) % self.multiple)
        return Row(ids[: len(ids) // self.multiple * self.multiple], len(prompt))


def questions(path: Path, tokenizer: Tokenizer, longest: int, count: int) -> list[str]:
    """The first `count` in an order fixed once for all, of at most `longest` tokens."""
    try:
        lines = path.read_text().splitlines()
        found = [json.loads(line)["question"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"training.recipe.data.questions={path} is no file of JSON lines with a key 'question'"
        ) from None
    if not found:
        raise ConfigError(f"training.recipe.data.questions={path} holds no question")
    short = [text for text in found if len(tokenizer.encode(text)) <= longest]
    Random(0).shuffle(short)
    if not short:
        raise ConfigError(
            f"training.recipe.data.longest_question={longest}: no question of {path} is so short"
        )
    return short[:count]


class Trainer:
    def __init__(
        self,
        base: Transformer,
        tokenizer: Tokenizer,
        recipe: Adaptation,
        folder: Path,
        trains: bool = True,
    ) -> None:
        """trains: goes on with the folder's state, does not only look at it, which may be by other
        code"""
        self.recipe, self.folder, data = recipe, folder, recipe.data
        recipe.adapter.of(base.spec)  # raises where there is no such mask
        asked = questions(Path(data.questions), tokenizer, data.longest_question, data.count)
        told = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        self._facts = recipe_facts(recipe, questions=told, base_weights=network_hash(base))
        # Before the questions are answered, which may take hours.
        self._state = load_state(folder, self._facts, trains)
        cache = folder / "answers.jsonl"
        self.rows = Rows(base, tokenizer, data, asked, "train", cache, recipe.adapter.block_size)
        self.model = Adapted(base, recipe.adapter, recipe.seed)
        self.learnt = self.model.tensors()
        self.optimizer = torch.optim.AdamW(
            list(self.learnt.values()), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.done = 0
        self.totals = {"sequences": 0, "tokens": 0, "fed": 0, "seconds": 0.0}
        self.window: list[dict[str, float]] = []
        """Numbers of the steps since the last report."""
        # Threads that share an operation wait for the slowest after each one: a thread per
        # microbatch instead.
        torch.set_num_threads(1)
        self._lanes = ThreadPoolExecutor(
            recipe.lanes, initializer=partial(torch.set_num_threads, 1)
        )

    def resume(self) -> bool:
        """Continues from the folder's saved state, if it has one."""
        state, self._state = self._state, None
        if state is None:
            return False
        with taken_over(self.folder):
            for name in {**self.learnt, **state["adapter"]}:
                ours, kept = self.learnt[name].data, state["adapter"][name]
                if kept.shape != ours.shape:
                    raise ValueError(name)
                ours.copy_(kept)
            load_optimizer(self.optimizer, state["optimizer"])
            self.totals = same_keys(state["totals"], self.totals)
            self.window = [same_keys(step, step) for step in state.get("window", [])]
        self.done = state["step"]
        return True

    def save(self) -> None:
        state = {
            "adapter": {name: tensor.detach() for name, tensor in self.learnt.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.done,
            "totals": self.totals,
            "window": self.window,
            "recipe": self._facts,
        }
        # The state comes last: it is what tells that a step is done, the adapter included.
        save_adapter(self.folder / "adapter", self.recipe.adapter, self.learnt)
        save_state(self.folder, state)

    def export(self, folder: Path, command: str, course: str) -> None:
        """The adapter, and beside it what its card says of the training."""
        save_adapter(folder, self.recipe.adapter, self.learnt)
        data = self.recipe.data
        shares = ", ".join(f"{kind} {weight:g}" for kind, weight in data.kinds.items())
        facts = {
            "command": command,
            "course": course,
            "data": f"greedy answers of the base (up to {data.longest_answer} tokens) to "
            f"{data.count} questions of {Path(data.questions).name} (up to {data.longest_question} "
            f"tokens), generated tasks in natural wordings; drawn in proportion: {shares}",
            "steps": self.done,
            "seed": self.recipe.seed,
            "parameters": sum(tensor.numel() for tensor in self.learnt.values()),
            **self.totals,
        }
        (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")

    def batches(self, step: int) -> list[BlockBatch]:
        """Rows of similar length share a microbatch."""
        recipe = self.recipe
        rng = Random(f"{recipe.seed}/{step}")
        rows = [self.rows.draw(rng) for _ in range(recipe.micros * recipe.rows)]
        # The longest first: what is left for the end is short, no lane waits for another.
        rows.sort(key=lambda row: -len(row.ids))
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        blocks = ShiftedBlocks(block=recipe.block_at(step), opening=recipe.opening)
        spec = self.model.base.spec
        parts = [rows[i * recipe.rows : (i + 1) * recipe.rows] for i in range(recipe.micros)]
        return [blocks(part, spec.mask_id, spec.pad_id, generator) for part in parts]

    def losses(self, batch: BlockBatch) -> Tensor:
        """Cross entropy of every target [targets]."""
        run = batch.attention(self.model.base.dtype)
        hidden = self.model.base.hidden(batch.tokens, batch.positions, run=run)
        logits = self.model.logits(hidden.flatten(0, 1)[batch.states])
        return F.cross_entropy(logits.float(), batch.targets, reduction="none")

    def _gradients(self, batch: BlockBatch, total: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        losses = self.losses(batch)
        gradients = torch.autograd.grad(losses.sum() / total, list(self.learnt.values()))
        return losses.detach(), gradients

    def step(self) -> dict[str, float]:
        started = time.perf_counter()
        batches = self.batches(self.done)
        total = sum(len(batch.targets) for batch in batches)
        jobs = [self._lanes.submit(self._gradients, batch, total) for batch in batches]
        results = [job.result() for job in jobs]
        for tensor, *parts in zip(
            self.learnt.values(), *(gradients for _, gradients in results), strict=True
        ):
            tensor.grad = torch.stack(parts).sum(0)
        norm = torch.nn.utils.clip_grad_norm_(list(self.learnt.values()), 1.0)
        factor = self.recipe.factor(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate * factor
        self.optimizer.step()
        block = self.recipe.block_at(self.done)
        self.done += 1
        seconds = time.perf_counter() - started
        self.totals["sequences"] += sum(len(batch.tokens) for batch in batches)
        self.totals["tokens"] += total
        self.totals["fed"] += sum(batch.tokens.numel() for batch in batches)
        self.totals["seconds"] += seconds
        found = {"block": block, "rate": factor, "norm": float(norm), "seconds": seconds}
        found["fed"] = sum(batch.tokens.numel() for batch in batches)
        losses = torch.cat([loss for loss, _ in results])
        place = torch.cat([batch.places for batch in batches])
        found["loss"] = float(losses.mean())
        for i in range(block):
            found[f"loss/{i}"] = float(losses[place == i].mean())
        return found

    def run(self, log: Log) -> dict[str, Any]:
        """Trains to the end; logs and saves every few minutes. Returns the totals."""
        saved = time.monotonic()
        for numbers in self._steps():
            self.window.append(numbers)
            last = self.done == self.recipe.total_steps
            if self.done % self.recipe.log_every == 0 or last:
                log.log(_mean(self.window) | self.totals, step=self.done)
                self.window = []
            if time.monotonic() - saved > 60 * self.recipe.save_minutes:
                self.save()
                saved = time.monotonic()
        # Also where it was finished before: its files may have been taken away since.
        self.save()
        return {**self.totals, "steps": self.done}

    def _steps(self) -> Iterator[dict[str, float]]:
        while self.done < self.recipe.total_steps:
            yield self.step()


def _mean(window: Sequence[Mapping[str, float]]) -> dict[str, float]:
    last = window[-1]
    found = {}
    for key in last:
        values = [w[key] for w in window if key in w and w[key] == w[key]]
        found[key] = sum(values) / max(1, len(values))
    fed = sum(w["fed"] for w in window)
    found["tokens_per_second"] = fed / sum(w["seconds"] for w in window)
    del found["seconds"], found["fed"]
    return found
