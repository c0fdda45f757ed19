"""Supervised training of a masked diffusion model with LLaDA's objective.

Per row: mask each response token with probability t, predict the originals, cross entropy weighted
by 1/t and divided by the response length; EOS padding counts as response (arXiv 2502.09992, section
2.3 and the official guidelines). Resuming is exact: batches are a function of the step, everything
else is in the saved state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel

from dllm.models.loading import save_model
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.batches import Batch, BatchSource, Stage
from dllm.training.checkpoints import load_state, save_state
from dllm.training.evaluate import accuracy
from dllm.training.optimizers import Optimizers, Rates, initialise


class MetricLog(Protocol):
    def log(self, metrics: dict[str, Any], step: int) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the result of a training run, and when it reports."""

    stages: list[Stage]
    total_steps: int
    rates: Rates = field(default_factory=Rates)
    micros: int = 2
    """Microbatches per optimizer step; each has one canvas length."""
    tokens_per_micro: int = 2560
    seed: int = 0
    compile: bool = True
    bf16: bool = True
    log_every: int = 20
    """In steps."""
    save_minutes: float = 3.0
    eval_minutes: float = 5.0
    eval_items: int = 20
    """Held-out samples per kind of a periodic evaluation."""


class Trainer:
    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.tokenizer, self.folder = recipe, tokenizer, folder
        self.model = Transformer(spec)
        initialise(self.model, recipe.seed)
        self.optimizers = Optimizers(self.model, recipe.rates)
        self.source = BatchSource(
            tokenizer,
            recipe.stages,
            recipe.total_steps,
            recipe.micros,
            recipe.tokens_per_micro,
            recipe.seed,
        )
        self.done = 0  # optimizer steps
        self.totals = {"sequences": 0, "tokens": 0, "seconds": 0.0}
        compiled = torch.compile(self.model.hidden, dynamic=False) if recipe.compile else None
        self._hidden: Callable[..., torch.Tensor] = compiled or self.model.hidden

    def resume(self) -> bool:
        """Continues from the folder's saved state, if it has one."""
        state = load_state(self.folder)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.done, self.totals = state["step"], state["totals"]
        return True

    def save(self) -> None:
        save_state(
            self.folder,
            {
                "model": self.model.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "step": self.done,
                "totals": self.totals,
            },
        )
        save_model(self.model, self.folder / "model", torch.bfloat16)

    def losses(self, batches: list[Batch]) -> tuple[float, float]:
        """Accumulates gradients; (loss per row, accuracy on masked tokens) before the update."""
        rows = sum(batch.rows for batch in batches)
        loss_sum, hits, masks = 0.0, 0, 0
        for batch in batches:
            # the composed kernel trains 1.3x faster than the fused one on 50 tokens
            with (
                torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16),
                sdpa_kernel(SDPBackend.MATH),
            ):
                hidden = self._hidden(batch.tokens).flatten(0, 1)[batch.masked]
                logits = self.model.logits(hidden).float()  # [masks, vocab]
            each = F.cross_entropy(logits, batch.targets, reduction="none")
            loss = (each * batch.weights).sum() / rows
            loss.backward()
            loss_sum += loss.item()
            hits += int((logits.argmax(-1) == batch.targets).sum())
            masks += len(batch.targets)
        return loss_sum, hits / max(1, masks)

    def steps(self) -> Iterator[dict[str, float]]:
        """One dictionary of numbers per optimizer step, until all are done."""
        self.model.train()
        with ThreadPoolExecutor(1) as worker:
            following = worker.submit(self.source.step, self.done)
            while self.done < self.recipe.total_steps:
                started = time.perf_counter()
                batches = following.result()
                following = worker.submit(self.source.step, self.done + 1)
                loss, hit_rate = self.losses(batches)
                factor = self.recipe.rates.factor(self.done, self.recipe.total_steps)
                self.optimizers.step(factor)
                self.done += 1
                tokens = sum(batch.tokens.numel() for batch in batches)
                seconds = time.perf_counter() - started
                self.totals["sequences"] += sum(batch.rows for batch in batches)
                self.totals["tokens"] += tokens
                self.totals["seconds"] += seconds
                yield {
                    "loss": loss,
                    "token_accuracy": hit_rate,
                    "rate": factor,
                    "tokens": tokens,
                    "seconds": seconds,
                }

    def run(self, log: MetricLog) -> None:
        """Trains to the end: logs, saves every few minutes, evaluates on held-out samples."""
        recipe = self.recipe
        suite = EmbeddedSuite()
        held_out = suite.samples("test", recipe.eval_items * len(suite.kinds), seed=1)
        window: list[dict[str, float]] = []
        saved = evaluated = time.monotonic()
        for numbers in self.steps():
            window.append(numbers)
            now, last = time.monotonic(), self.done == recipe.total_steps
            if self.done % recipe.log_every == 0 or last:
                log.log(_mean(window) | self.totals, step=self.done)
                window = []
            if now - saved > 60 * recipe.save_minutes or last:
                self.save()
                saved = now
            if now - evaluated > 60 * recipe.eval_minutes or last:
                scores = accuracy(self.model, self.tokenizer, suite, held_out)
                log.log({f"accuracy/{k}": v for k, v in scores.items()}, step=self.done)
                evaluated = time.monotonic()


def _mean(window: list[dict[str, float]]) -> dict[str, float]:
    count = len(window)
    mean = {key: sum(w[key] for w in window) / count for key in ("loss", "token_accuracy", "rate")}
    seconds = sum(w["seconds"] for w in window)
    return {**mean, "tokens_per_second": sum(w["tokens"] for w in window) / seconds}
