"""Trains Learn2PD's filter on an oracle's records: `python -m scripts.train filter data=FOLDER`.

Full-batch AdamW on the binary cross entropy over all positions of the block, decoded ones
included, as the authors' notebook; it differs in splitting by prompt (`split=record`
is theirs), seeding, and stopping when the validation loss has not improved for `patience`
iterations, best weights kept (`patience=null` is theirs: all iterations, the last weights). The
same command goes on after a kill.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from dllm.config import build, fingerprint
from dllm.errors import ConfigError
from dllm.models.filter import (
    FILE_NAME,
    FilterFacts,
    FilterNetwork,
    convert_torch_filter,
    effective_threshold,
    published_differences,
    save_filter,
)
from dllm.tracking.tracker import RunInfo
from dllm.training.checkpoints import Course, load_optimizer, recipe_facts, taken_over
from dllm.training.checks import not_below
from dllm.training.metric_log import MetricLog
from dllm.training.records import Records, load_records


PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class FilterRecipe:
    """Everything that determines the trained filter but the records."""

    depth: int
    """Linear layers, ReLU between them (>= 1)."""
    learning_rate: float
    iterations: int
    """Full-batch steps at most."""
    patience: int | None
    """Iterations without a better validation loss after which training ends with the best weights;
    None = all iterations, the last weights."""
    check_every: int
    """Iterations between validations."""
    split: Literal["prompt", "record"]
    """What is kept together by the 80/10/10 split."""
    report_threshold: float
    """Probability above which a report counts a position as accepted."""
    seed: int

    def __post_init__(self) -> None:
        not_below(self, "recipe", 1, "depth", "iterations", "check_every")
        if self.patience is not None:
            not_below(self, "recipe", 1, "patience")
        if not self.learning_rate > 0:
            raise ConfigError(f"recipe.learning_rate={self.learning_rate} must be > 0")
        if not 0 <= self.report_threshold <= 1:
            raise ConfigError(f"recipe.report_threshold={self.report_threshold} is outside [0, 1]")


def split_records(records: Records, recipe: FilterRecipe) -> dict[str, Tensor]:
    """Record numbers of each part.

    Raises `ConfigError` where a part would be empty.
    """
    unit = records.sample if recipe.split == "prompt" else torch.arange(len(records.sample))
    units = unit.unique()
    generator = torch.Generator().manual_seed(recipe.seed)
    shuffled = units[torch.randperm(len(units), generator=generator)]
    tenth = len(units) // 10
    if not tenth:
        raise ConfigError(f"data: {len(units)} {recipe.split}s are too few to split 80/10/10")
    sizes = (len(units) - 2 * tenth, tenth, tenth)
    chosen = dict(zip(PARTS, shuffled.split(sizes), strict=True))
    return {name: torch.isin(unit, members).nonzero()[:, 0] for name, members in chosen.items()}


def report(network: FilterNetwork, c: Tensor, final: Tensor, threshold: float) -> dict[str, float]:
    """Loss and error rates: of what is accepted, how much is wrong; of what is rejected, how
    much is right. A rate over nothing is 0."""
    with torch.no_grad():
        z = network(c)
    accepted = z.sigmoid() > threshold
    wrong, missed = (accepted & ~final).sum(), (~accepted & final).sum()
    return {
        "loss": F.binary_cross_entropy_with_logits(z, final.float()).item(),
        "accuracy": (accepted == final).float().mean().item(),
        "false_positive_rate": (wrong / accepted.sum().clamp(min=1)).item(),
        "false_negative_rate": (missed / (~accepted).sum().clamp(min=1)).item(),
        "accepted_share": accepted.float().mean().item(),
    }


def train_filter(
    records: Records,
    recipe: FilterRecipe,
    log: MetricLog | None = None,
    course: Course | None = None,
) -> tuple[FilterNetwork, dict[str, float]]:
    """The network that the recipe keeps and its report on the test part.

    course: where the training is kept and gone on with
    """
    started = time.perf_counter()
    parts = split_records(records, recipe)
    data = {name: (records.confidence[at], records.final[at]) for name, at in parts.items()}
    torch.manual_seed(recipe.seed)
    facts = FilterFacts(
        block_length=records.confidence.shape[1],
        depth=recipe.depth,
        feature=records.facts.get("feature", "confidence"),
        conf_dtype=records.facts.get("conf_dtype"),
        model=records.facts.get("model"),
    )
    network = FilterNetwork(facts)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate)
    best, best_loss, best_at = dict(network.state_dict()), float("inf"), 0
    done, seconds, ended = 0, 0.0, False
    if course is not None and (state := course.state) is not None:
        with taken_over(course.folder):
            best = state["best"]
            network.load_state_dict(best)
            network.load_state_dict(state["network"])
            load_optimizer(optimizer, state["optimizer"])
            best_loss, best_at = float(state["best_loss"]), int(state["best_at"])
            done, seconds, ended = state["step"], float(state["seconds"]), bool(state["ended"])
    c, final = data["train"][0], data["train"][1].float()
    for iteration in range(done + 1, 0 if ended else recipe.iterations + 1):
        loss = F.binary_cross_entropy_with_logits(network(c), final)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if iteration % recipe.check_every and iteration != recipe.iterations:
            continue
        validation = report(network, *data["validation"], recipe.report_threshold)
        if log is not None:
            named = {f"validation/{name}": value for name, value in validation.items()}
            log.log({"loss": loss.item(), **named}, step=iteration)
        if recipe.patience is None or validation["loss"] < best_loss:
            best = {name: value.clone() for name, value in network.state_dict().items()}
            best_loss, best_at = validation["loss"], iteration
        ended = recipe.patience is not None and iteration - best_at >= recipe.patience
        if course is not None:
            course.save(
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best,
                    "best_loss": best_loss,
                    "best_at": best_at,
                    "step": iteration,
                    "seconds": seconds + time.perf_counter() - started,
                    "ended": ended,
                }
            )
        if ended:
            break
    network.load_state_dict(best)
    tested = report(network, *data["test"], recipe.report_threshold)
    return network.eval(), {**tested, "iteration": best_at}


def execute(config: DictConfig) -> None:
    """Trains and saves a filter with its card, or converts a published one."""
    output = Path(config.output)
    if config.convert is not None:
        network = convert_torch_filter(Path(config.convert))
        save_filter(network, output / FILE_NAME)
        different = published_differences(network)
        print(f"{output / FILE_NAME}: converted, block_length={network.facts.block_length}")
        print("\n".join(different) or "behaves as the published LLaDA filter at all probes")
        return
    records = load_records(Path(config.data))
    recipe = build(config.recipe, "recipe")
    tracker = build(config.tracker, "tracker")
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    label = f"train filter {config.model.name}"
    tracker.start(RunInfo(output, fingerprint(config), label, plain))  # type: ignore[arg-type]
    course = Course(output, recipe_facts(recipe, total_steps=recipe.iterations, data=records.mark))
    log = MetricLog(output / "metrics.jsonl", tracker, course.done)
    try:
        network, tested = train_filter(records, recipe, log, course)
        tracker.summary(tested)
    finally:
        log.close()
        tracker.finish()
    save_filter(network, output / FILE_NAME)
    assert course.state is not None, "the last iteration is saved"
    seconds = course.state["seconds"]
    card = filter_card(network, records, recipe, tested, seconds, config)
    (output / "FILTER.md").write_text(card)
    print(card)


def filter_card(
    network: FilterNetwork,
    records: Records,
    recipe: FilterRecipe,
    tested: Mapping[str, float],
    seconds: float,
    config: Any,
) -> str:
    facts = network.facts
    share = records.final.float().mean().item()
    kept = "last weights" if recipe.patience is None else "best validation loss"
    lines = [
        f"# Learn2PD filter of {config.model.name}",
        "",
        f"{sum(p.numel() for p in network.parameters()):,} parameters, {facts.depth} layers of "
        f"{facts.block_length} x {facts.block_length}: confidences of a block in, "
        '"is the current arg-max already final?" out (arXiv 2509.25188). For `sampler=learn2pd`.',
        "",
        "| | |",
        "|---|---|",
        f"| trained for | {facts.model} |",
        f"| feature | {facts.feature} of the arg-max, softmax in {facts.conf_dtype} |",
        f"| records | {len(records.sample):,} of {records.sample.max().item() + 1:,} training "
        f"samples, {share:.1%} of the labels final |",
        f"| split | 80/10/10 by {recipe.split}, seed {recipe.seed} |",
        f"| training | full-batch AdamW, rate {recipe.learning_rate}, {kept} at "
        f"iteration {tested['iteration']:,}, {seconds:.0f} s |",
        f"| test loss | {tested['loss']:.4f} |",
        f"| test accuracy at {recipe.report_threshold} | {tested['accuracy']:.4f} |",
        f"| false positives among accepted | {tested['false_positive_rate']:.4f} |",
        f"| false negatives among rejected | {tested['false_negative_rate']:.4f} |",
        f"| data | `{config.data_command}` |",
        f"| command | `{config.command}` |",
    ]
    if facts.feature != "confidence":
        return "\n".join(lines) + "\n"
    lines += [
        "",
        "Behaves, to first order, like a plain threshold on the confidence (median over positions "
        "and contexts of the smallest accepted value):",
        "",
        "| accept_threshold | plain threshold |",
        "|---|---|",
    ]
    for accept in (0.8, 0.9, 0.96, 0.98):
        lines.append(f"| {accept} | {effective_threshold(network, accept):.2f} |")
    return "\n".join(lines) + "\n"
