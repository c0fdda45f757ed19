"""What makes two runs differ: options, samples, weights, code, machine, the likeliest cause first.

The order is that of causes which were found behind figures that could not be reproduced: another
checkpoint or prompt moves an accuracy by points, a library's version hardly ever does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from dllm.config import WITHOUT_EFFECT
from dllm.metrics.definitions import SampleResult


@dataclass(frozen=True)
class Cause:
    """Options that matter for the same reason."""

    names: Sequence[str]
    """Full names, endings (with a dot before), or first words."""
    why: str


CAUSES = (
    Cause(("model", "weights"), "another model"),
    Cause(("task", "limit", "samples"), "other questions, prompts or grading"),
    Cause(("gen_length",), "room for the answer, and one token per step's forwards"),
    Cause((".block_length", ".default_block_length"), "order of decoding"),
    Cause(("sampler",), "the rule"),
    Cause(("eos",), "where an answer ends, and what behind it is decoded"),
    Cause(("cache",), "approximate keys and values"),
    Cause(("constraint",), "tokens that are refused"),
    Cause(("model.dtype",), "rounding: flips decisions that lie on a border"),
    Cause(("seed",), "samples of a generated task, and every random draw"),
    Cause(("batch_size",), "tokens only in half precision; seconds always"),
    Cause(("model.device", "machine"), "kernels round otherwise: flips decisions on a border"),
    Cause(("code",), "the program itself"),
    Cause(("version",), "libraries: rounding, templates, tokenizers"),
)


@dataclass(frozen=True)
class Difference:
    """One thing in which runs differ."""

    name: str
    values: Sequence[str]
    """Of every run, in their order."""
    why: str


def recipe(
    config: DictConfig, identity: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, str]:
    """Everything that can change a result, by a name."""
    found = dict(_leaves(config))
    found |= {f"weights {file}": str(mark) for file, mark in identity.get("model", {}).items()}
    found |= {f"samples {name}": str(mark) for name, mark in identity.get("data", {}).items()}
    found |= {f"code {name}": str(mark) for name, mark in identity.get("code", {}).items()}
    for name, value in environment.items():
        kind = "machine" if name in ("device", "threads") else "version"
        found[f"{kind} {name}"] = str(value)
    return found


def _leaves(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Full path and value of every option that can change a result."""
    chosen = [str(key) for key in config if key not in WITHOUT_EFFECT]
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, chosen), resolve=True)

    def walk(value: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{name}.{key}" if name else str(key))
        else:
            yield name, str(value)

    yield from walk(plain, "")


def differences(recipes: Sequence[Mapping[str, str]]) -> list[Difference]:
    """What is not the same in all of them, the likeliest cause first. A module that one of them
    does not use is told by the options that name it."""
    found = []
    for name in dict.fromkeys(name for one in recipes for name in one):
        if name.startswith("code ") and any(name not in one for one in recipes):
            continue
        values = [one.get(name, "-") for one in recipes]
        if len(set(values)) > 1:
            rank = _cause(name)
            found.append((rank, Difference(name, values, CAUSES[rank].why)))
    return [difference for _, difference in sorted(found, key=lambda pair: pair[0])]


def _cause(name: str) -> int:
    """Index in `CAUSES`: a full name before an ending before a beginning."""
    first = name.replace(" ", ".").split(".")[0]
    for fits in (name.__eq__, lambda n: n[0] == "." and name.endswith(n), first.__eq__):
        for index, cause in enumerate(CAUSES):
            if any(map(fits, cause.names)):
                return index
    return len(CAUSES) - 1


def shown(found: Sequence[Difference], labels: Sequence[str]) -> Table:
    """For the terminal."""
    table = Table()
    for name in ("what", *labels, "why it may matter"):
        table.add_column(Text(name), overflow="fold")
    for one in found:
        table.add_row(*map(Text, (one.name, *one.values, one.why)))
    return table


def agreement(ours: Sequence[SampleResult], theirs: Sequence[SampleResult]) -> str:
    """How far the answers to the samples that both have are the same."""
    of_id = {sample.id: sample for sample in theirs}
    pairs = [(sample, of_id[sample.id]) for sample in ours if sample.id in of_id]
    same = sum(a.tokens == b.tokens for a, b in pairs)
    prompts = sum(a.prompt != b.prompt for a, b in pairs)
    graded = sum(a.correct != b.correct for a, b in pairs)
    return (
        f"{len(pairs)} samples in both ({len(ours)} and {len(theirs)}): {same} with the same "
        f"tokens, {graded} graded otherwise, {prompts} with another prompt"
    )
