"""Supervised training of a masked diffusion model with LLaDA's objective.

Per row: mask each response token with probability t, predict the originals, cross entropy weighted
by 1/t and divided by the response length; EOS padding counts as response (arXiv 2502.09992, section
2.3 and the official guidelines). Resuming is exact: batches are a function of the step, everything
else is in the saved state.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from dllm.config import choices
from dllm.errors import ConfigError
from dllm.models.loading import load_model, save_model
from dllm.models.placement import unavailable
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.batches import Batch, BatchSource, Objective, Questions, Stage, check_shares
from dllm.training.checkpoints import (
    load_state,
    recipe_facts,
    same_keys,
    save_state,
    start_mark,
    taken_over,
)
from dllm.training.checks import not_below
from dllm.training.evaluate import accuracy
from dllm.training.optimizers import Optimizers, Rates, initialise


_NUMBERS: Mapping[str, Any] = dict.fromkeys(("loss", "token_accuracy", "rate", "tokens", "seconds"))
"""What is told of a step."""


class Log(Protocol):
    def log(self, metrics: Mapping[str, float], step: int) -> None: ...


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the result of a training run, and when it reports."""

    stages: Mapping[str, Stage]
    """Name -> what is trained on, in this order."""
    total_steps: int
    rates: Rates = field(default_factory=Rates)
    micros: int = 2
    """Microbatches per optimizer step, each of one canvas length and on one thread of its own."""
    tokens_per_micro: int = 2560
    seed: int = 0
    device: str = "cpu"
    """torch device; on any other than the host the microbatches of a step follow one another."""
    workers: int = 0
    """Processes that draw batches ahead; 0 = a thread."""
    compile: bool = True
    bf16: bool = True
    log_every: int = 20
    """In steps."""
    save_minutes: float = 3.0
    eval_minutes: float = 5.0
    eval_items: int = 20
    """Held-out samples per kind of a periodic evaluation."""
    start: str | None = None
    """Checkpoint folder whose tensors are the initial values wherever name and shape agree."""
    objective: Objective | None = None
    """None = LLaDA's."""

    def __post_init__(self) -> None:
        not_below(
            self,
            "recipe",
            1,
            "total_steps",
            "micros",
            "tokens_per_micro",
            "log_every",
            "eval_items",
        )
        not_below(self, "recipe", 0, "workers", "save_minutes", "eval_minutes")
        if self.device == "auto" or unavailable(self.device) is not None:
            raise ConfigError(
                f"recipe.device={self.device}: no such device here; cpu, or cuda with a GPU"
            )
        check_shares(self.stages)
        longest = max(length for stage in self.stages.values() for length in stage.lengths)
        if self.tokens_per_micro < longest:
            raise ConfigError(
                f"recipe.tokens_per_micro={self.tokens_per_micro} holds no row of the longest "
                f"canvas, {longest}"
            )


class Trainer:
    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        recipe: Recipe,
        folder: Path,
        questions: Questions | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """data: what determines the questions, if they are none of the embedded tasks"""
        self.recipe, self.tokenizer, self.folder = recipe, tokenizer, folder
        self.model = Transformer(spec)
        initialise(self.model, recipe.seed)
        if recipe.compile:
            _check_compiler(self.recipe.device)
        if recipe.start is not None:
            if not Path(recipe.start).is_dir():
                raise ConfigError(
                    f"recipe.start={recipe.start} is not there{made_by(recipe.start)}"
                )
            _take_over(self.model, load_model(recipe.start))
        self.device = torch.device(recipe.device)
        self.model.to(self.device)
        self.optimizers = Optimizers(self.model, recipe.rates)
        self.source = BatchSource(
            tokenizer,
            recipe.stages,
            recipe.total_steps,
            recipe.micros,
            recipe.tokens_per_micro,
            recipe.seed,
            recipe.objective,
            questions,
        )
        self.source.objective.check(spec)
        words = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16]
        more = {"tokenizer": words, "start_weights": start_mark(recipe.start), **(data or {})}
        self._facts = recipe_facts(recipe, spec=asdict(spec), **more)
        self.done = 0  # optimizer steps
        self.scores: dict[str, float] = {}
        """Accuracies of the finished training."""
        self.totals = {"sequences": 0, "tokens": 0, "seconds": 0.0}
        self.window: list[dict[str, float]] = []
        """Numbers of the steps since the last report."""
        # One thread per microbatch: threads that share an operation wait for the slowest after each
        # one, and on a busy machine that is most of the time.
        torch.set_num_threads(1)
        torch.backends.cuda.matmul.allow_tf32 = True
        lanes = partial(ThreadPoolExecutor, initializer=torch.set_num_threads, initargs=(1,))
        count = recipe.micros if self.device.type == "cpu" else 1
        self._workers, self._single = lanes(count), lanes(1)
        self._compiled: set[tuple[int, int]] = set()  # (replica, length)
        self._replicas = [self.model, *(_replica(self.model) for _ in range(count - 1))]
        self._hidden: list[Callable[..., torch.Tensor]] = [
            torch.compile(replica.hidden, dynamic=False) if recipe.compile else replica.hidden
            for replica in self._replicas
        ]

    def resume(self, trains: bool = True) -> bool:
        """Continues from the folder's saved state, if it has one; not `trains`: only looks at it,
        which may be by other code."""
        state = load_state(self.folder, self._facts, trains)
        if state is None:
            return False
        with taken_over(self.folder):
            self.model.load_state_dict(state["model"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.totals = same_keys(state["totals"], self.totals)
            scores = state.get("scores", {})
            self.scores = same_keys(scores, scores)
            self.window = [same_keys(step, _NUMBERS) for step in state.get("window", [])]
        self.done = state["step"]
        return True

    def save(self) -> None:
        # The state comes last: it is what tells that a step is done, the model of it included.
        self._save_model()
        save_state(
            self.folder,
            {
                "model": self.model.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "step": self.done,
                "totals": self.totals,
                "window": self.window,
                "scores": self.scores,
                "recipe": self._facts,
            },
        )

    def _save_model(self) -> None:
        save_model(self.model, self.folder / "model", torch.bfloat16)

    def losses(self, batches: list[Batch]) -> tuple[float, float]:
        """Leaves the gradients in the model; (loss per row, accuracy on masked tokens)."""
        rows = sum(batch.rows for batch in batches)
        # on the host the composed kernel trains 1.3x faster than the fused one on 50 tokens
        composed = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with composed:
            placed = [(i % len(self._replicas), batch) for i, batch in enumerate(batches)]
            shapes = {(i, batch.tokens.shape[1]) for i, batch in placed}
            # the compiler must not run twice at once: both would write the same files
            lanes = self._workers if shapes <= self._compiled else self._single
            self._compiled |= shapes
            jobs = [lanes.submit(self._backward, i, batch, rows) for i, batch in placed]
            results = [job.result() for job in jobs]
        for replica in self._replicas[1:]:
            for ours, theirs in zip(self.model.parameters(), replica.parameters(), strict=True):
                assert ours.grad is not None and theirs.grad is not None, "backward has run"
                ours.grad.add_(theirs.grad)
                theirs.grad = None
        masks = sum(len(batch.targets) for batch in batches)
        return sum(loss for loss, _ in results), sum(hits for _, hits in results) / max(1, masks)

    def _backward(self, index: int, batch: Batch, rows: int) -> tuple[float, int]:
        """Gradients of one microbatch in replica `index`; (its share of the loss, right tokens)."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            hidden = self._hidden[index](batch.tokens, batch.positions, batch.visible)
            hidden = hidden.flatten(0, 1)[batch.masked]
            logits = self._replicas[index].logits(hidden).float()  # [masks, vocab]
        each = F.cross_entropy(logits, batch.targets, reduction="none")
        loss = (each * batch.weights).sum() / rows
        loss.backward()
        return loss.item(), int((logits.argmax(-1) == batch.targets).sum())

    def steps(self) -> Iterator[dict[str, float]]:
        """One dictionary of numbers per optimizer step, until all are done."""
        self.model.train()
        with closing(self._batches()) as drawn:
            while self.done < self.recipe.total_steps:
                started = time.perf_counter()
                batches = next(drawn)
                loss, hit_rate = self.losses(batches)
                factor = self.recipe.rates.factor(self.done, self.recipe.total_steps)
                self.optimizers.step(factor, self._workers)
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

    def _batches(self) -> Generator[list[Batch]]:
        """Those of every step from the next on, drawn ahead."""
        coming = range(self.done, self.recipe.total_steps)
        if self.recipe.workers:
            drawing = partial(DataLoader, _Drawn(self.source), batch_size=None, sampler=coming)
            yield from drawing(num_workers=self.recipe.workers)
            return
        with ThreadPoolExecutor(1) as worker:
            following = worker.submit(self.source.step, self.done)
            for step in coming:
                batches = following.result()
                following = worker.submit(self.source.step, step + 1)
                yield batches

    def run(self, log: Log) -> dict[str, float]:
        """Trains to the end: logs, saves every few minutes, evaluates on held-out samples.

        Returns the last accuracies and the totals.
        """
        recipe = self.recipe
        suite = EmbeddedSuite()
        held_out = suite.samples("test", recipe.eval_items * len(suite.kinds), seed=1)

        def evaluate() -> dict[str, float]:
            found = accuracy(self.model, self.tokenizer, suite, held_out)
            scores = {f"accuracy/{kind}": share for kind, share in found.items()}
            log.log(scores, step=self.done)
            return scores

        saved = evaluated = time.monotonic()
        for numbers in self.steps():
            self.window.append(numbers)
            now, last = time.monotonic(), self.done == recipe.total_steps
            if self.done % recipe.log_every == 0 or last:
                log.log(_mean(self.window) | self.totals, step=self.done)
                self.window = []
            if now - saved > 60 * recipe.save_minutes or last:
                self.save()
                saved = now
            if now - evaluated > 60 * recipe.eval_minutes and not last:
                evaluate()
                evaluated = time.monotonic()
        if not self.scores:
            self.scores = evaluate()
            self.save()
        else:  # finished before: the model of the state, whatever became of its files since
            self._save_model()
        return {**self.scores, **self.totals, "steps": self.done}


@dataclass(frozen=True)
class _Drawn(Dataset[list[Batch]]):
    """Batches by step."""

    source: BatchSource

    def __getitem__(self, step: int) -> list[Batch]:
        return self.source.step(step)


def _check_compiler(device: str) -> None:
    """Raises `ConfigError` where torch would fail at the first step."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if torch.device(device).type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(
            f"recipe.compile=True needs a C++ compiler, there is no {compiler}; install one, name "
            "it in CXX, or set it to false"
        )


def made_by(start: str) -> str:
    """How a checkpoint in the default folder of a shipped recipe comes to be; else nothing."""
    name = Path(start).parent.name
    if Path(start) != Path("results/training", name, "model") or name not in choices("training"):
        return ""
    command = f"python -m scripts.train model={'-'.join(name.split('-')[:2])}"
    if not choices("model").count(name):
        command += f" training={name} output=results/training/{name}"
    return f": `{command}` makes it"


def _take_over(model: Transformer, start: Transformer) -> None:
    """Copies every tensor of `start` that fits, and the rows of a smaller vocabulary."""
    ours = model.state_dict()
    fitting = {}
    for name, tensor in start.state_dict().items():
        if name in ours and name.startswith(("embed.", "head.")):
            tensor = torch.cat((tensor, ours[name][len(tensor) :]))
        if name in ours and ours[name].shape == tensor.shape:
            fitting[name] = tensor
    for name in ours.keys() - fitting.keys():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            fitting[name] = _scale(fitting, name, ours[name].numel())
    model.load_state_dict(fitting, strict=False)


def _scale(tensors: Mapping[str, torch.Tensor], norm: str, width: int) -> torch.Tensor:
    """Weight of a query or key norm that leaves the scale of each dimension, over all heads, as the
    projection gives it to inputs of unit variance."""
    layer = norm.rsplit("attn.", 1)[0]
    projection = tensors[norm.replace("_norm", "")] * tensors[f"{layer}attn_norm.weight"]
    return projection.square().sum(dim=1).view(-1, width).mean(dim=0).sqrt()


def _replica(model: Transformer) -> Transformer:
    """The same parameters in memory, with gradients of their own."""
    with torch.device("meta"):
        twin = Transformer(model.spec)
    twin.load_state_dict(model.state_dict(), assign=True)
    return twin.train()


def _mean(window: list[dict[str, float]]) -> dict[str, float]:
    count = len(window)
    mean = {key: sum(w[key] for w in window) / count for key in ("loss", "token_accuracy", "rate")}
    seconds = sum(w["seconds"] for w in window)
    return {**mean, "tokens_per_second": sum(w["tokens"] for w in window) / seconds}
