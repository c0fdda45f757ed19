"""From a trained model to a shipped checkpoint with its model card.

`python -m scripts.train export=FOLDER` writes it, `python -m dllm.training.export FOLDER` measures
it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from dllm.errors import ConfigError
from dllm.models.config_reader import Overrides
from dllm.models.loading import load_model, read_spec, save_model
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.printable import public
from dllm.tasks.suite import EmbeddedSuite
from dllm.training.block_noise import BlockNoise
from dllm.training.dual_stream import DualStream
from dllm.training.evaluate import LISTS, REGIONS, accuracy
from dllm.training.focused_noise import FocusedNoise
from dllm.training.next_token import NextToken
from dllm.training.sft import Recipe
from dllm.training.vocabulary import MASK, read_tokenizer


AUTOREGRESSIVE = "autoregressive"

BARS = {
    **dict.fromkeys(("copy", "reverse", "insert", "remove", "replace"), 0.97),
    "sort": 0.90,
    "json": 0.95,
    **dict.fromkeys(("arithmetic", "latin", "shuffle", "replace_random"), 0.85),
}
"""Lowest acceptable accuracy per kind, one token per step."""

ALLOWANCE = {"full": 0.0, "causal": 0.03, "block_causal": 0.03, AUTOREGRESSIVE: 0.03}
"""How far below the bars a model of that kind may stay."""

DATA = "drawn on the fly by `dllm.tasks.suite.EmbeddedSuite`: eleven kinds, listed below"

KINDS = {
    "full": "A bidirectional masked diffusion",
    "causal": "A causal masked diffusion",
    "block_causal": "A block-causal masked diffusion",
    AUTOREGRESSIVE: "An autoregressive",
}

ORDERS = {
    "full": "most confident first, one block",
    "block_causal": "most confident first, in blocks of {block}",
    "causal": "most confident first, one block",
    AUTOREGRESSIVE: "from left to right",
}
"""How the accuracy is decoded."""

CARD = """# {name}

{kind} language model of {parameters:.2f} M parameters ({family} layout,
tied embeddings, bfloat16 weights), small enough to decode in seconds on a laptop. It knows the
generated tasks of `dllm.tasks` and nothing else.

| | |
|---|---|
| objective | {objective} |
| data | {data} |
| split | by hash of the content, one prompt in ten held out |
| steps, sequences, tokens | {steps:,}, {sequences:,}, {tokens:,} (prompts and padding included) |
| seed, first weights | {seed}, {start} |
| wall time of the steps | {minutes:.0f} min on {machine} |
| training | `{command}` |
| course | {course} |
| tokenizer | {tokenizer} |

## Accuracy

{items} held-out samples per kind, exact match (`shuffle` and `replace_random`: validity), one token
per step, {order}, as many positions as a kind's longest answer needs
({regions}), float32 arithmetic.

| kind | accuracy | bar | |
|---|---|---|---|
{rows}

Measured by `python -m dllm.training.export {folder} --items {items}`.

## Format

`<|user|>{{prompt}}<|assistant|>`, the response, `<|endoftext|>` up to the end of the region:
`<|user|>reverse: Mia Tom Ada<|assistant|>Ada Tom Mia<|endoftext|>`.
"""


def measure(folder: Path, items: int) -> dict[str, float]:
    """Kind -> accuracy of a checkpoint on the first `items` held-out samples of each kind."""
    suite = EmbeddedSuite()
    tokenizer = read_tokenizer("tokenizer", folder / "tokenizer.json")
    samples = suite.samples("test", items * len(suite.kinds))
    mask = Overrides(mask_id=tokenizer.token_to_id(MASK))  # stands for what is still to be decoded
    return accuracy(load_model(folder, overrides=mask), tokenizer, suite, samples)


def objective_of(recipe: Recipe) -> str:
    """What the loss was, in words."""
    match objective := recipe.objective:
        case None:
            return (
                "LLaDA SFT: response tokens masked with t ~ U(0, 1), weight 1/t, EOS-padded "
                "responses"
            )
        case FocusedNoise(focused=focused, late=late, tokens=tokens):
            listed = ", ".join(map(str, tokens))
            return (
                "LLaDA SFT, EOS-padded responses, with other noise: a share t ~ U(0, 1) of the "
                f"response's tokens is masked, loss their mean; {late:g} of the rows draw "
                f"t = u^2, {focused:g} mask only tokens of the ids {listed} where they hold some"
            )
        case BlockNoise():
            return "block diffusion: masked blocks beside their clean past, weight 1/t"
        case DualStream():
            return (
                "WeDLM dual stream: masks of a causal block-wise reordered copy, plus next tokens"
            )
        case NextToken():
            return "next token of the response, EOS up to the end of the row included"
        case _:
            return f"`{type(objective).__module__}.{type(objective).__qualname__}`"


def kind_of(spec: ModelSpec) -> str:
    """Its attention, or that it predicts the next token."""
    return AUTOREGRESSIVE if spec.autoregressive else spec.attention


def table(scores: dict[str, float], allowance: float) -> str:
    """Markdown rows: kind, accuracy, bar, by how much it is missed."""
    lines = []
    for kind, score in scores.items():
        bar = BARS[kind] - allowance
        verdict = "reached" if score >= bar else f"missed by {bar - score:.3f}"
        lines.append(f"| {kind} | {score:.3f} | {bar:.2f} | {verdict} |")
    return "\n".join(lines)


def export(model: Transformer, folder: Path, facts: dict[str, Any], items: int = 200) -> str:
    """Writes config.json, model.safetensors and README.md beside the tokenizer; returns the card.

    `facts`: steps, sequences, tokens, seconds, seed, start, machine, command, course, objective,
    and where they differ from those of the embedded models, data and tokenizer.
    """
    save_model(model, folder, torch.bfloat16)
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private
    kind = kind_of(model.spec)
    made = f"`python -m dllm.training.vocabulary {public(folder)}`"
    facts = {"data": DATA, "tokenizer": made, **facts}
    card = CARD.format(
        name=folder.resolve().name,
        folder=public(folder),
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        minutes=facts["seconds"] / 60,
        items=items,
        kind=KINDS[kind],
        family=model.spec.family,
        order=ORDERS[kind].format(block=model.spec.block_size),
        regions=", ".join(
            f"{kind} {length}" for kind, length in [*REGIONS.items(), ("others", LISTS)]
        ),
        rows=table(measure(folder, items), ALLOWANCE[kind]),
        **facts,
    )
    (folder / "README.md").write_text(card)
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of an embedded checkpoint per kind.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=200, help="held-out samples per kind")
    given = parser.parse_args()
    if given.items < 1:
        parser.error(f"--items {given.items} must be >= 1")
    try:
        allowance = ALLOWANCE[kind_of(read_spec(given.folder))]
        print(table(measure(given.folder, given.items), allowance))
    except ConfigError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
