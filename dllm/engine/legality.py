"""Which combinations of sampler, cache and model make sense, and why the others do not.

One list of reasons for the loop, `scripts.run` and `scripts.inspect`; derived from what each part
declares, never from names.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from dllm.cache.policy import CachePolicy
from dllm.errors import ConfigError
from dllm.models.spec import NO_MASK, ModelSpec, Noise
from dllm.step.canvas import Prompt
from dllm.step.plan import MODEL, Need
from dllm.step.sampler import Sampler


@runtime_checkable
class _Phased(Protocol):
    """A cache that is refreshed at fixed steps."""

    refresh_cycle: int


@runtime_checkable
class _Shifting(Protocol):
    """A cache that may leave out the row that predicts a block's first position."""

    shifted_rows: str


_SUPPLIED: dict[Need, tuple[str, tuple[str, ...]]] = {
    "opening_logits": ("reads all it asks for in a block's first step", ("prefix", "dual")),
    "block_logits": ("reads every position of the block in every step", ("prefix", "dual")),
    "ahead_logits": ("reads positions behind the block in every step", ("prefix",)),
    "all_logits": ("reads positions outside the block in every step", ()),
    "hypotheses": ("needs drafts computed beside the canvas", ("prefix",)),
    "guidance": ("needs canvases without the prompt (cfg_scale > 0) computed beside it", ()),
}
"""What only some caches compute: why a rule needs it computed, and which of those that store
compute it under full attention (`none` computes everything)."""
_NOISE: dict[Noise, str] = {"mask": "masks", "uniform": "random tokens, without a mask token"}


def needs(sampler: Sampler) -> frozenset[Need]:
    """What the sampler's rule, its region and its logits transform need from the engine."""
    wanted = sampler.needs | sampler.region.needs
    transform = sampler.logits_transform
    return wanted if transform is None else wanted | transform.needs


def refusals(
    sampler: Sampler, cache: CachePolicy, spec: ModelSpec, batch_size: int = 1
) -> list[str]:
    """One line per reason why these parts can't decode together; empty = they can."""
    if spec.mask_id == NO_MASK and spec.noise == "mask":
        return [
            "the model is autoregressive, it has no mask token: it only verifies drafts "
            "(model.mask_id=ID of a token that no text holds lets sampler=left_to_right decode)"
        ]
    rule, policy = type(sampler).__name__, type(cache).__name__
    wanted = needs(sampler)
    found = []
    kind = type(sampler)
    if kind.choose is Sampler.choose and kind.select is Sampler.select:
        found.append(f"sampler={rule} says nowhere what it commits: it needs a method choose")
    if sampler.batch_one and batch_size > 1:
        found.append(f"batch_size={batch_size}: {rule} is defined for batch_size=1")
    found += _attention(cache, spec, "the model's")
    if sampler.noise != spec.noise:
        found.append(
            f"sampler={rule} decodes canvases of {_NOISE[sampler.noise]}; those of the "
            f"{spec.family} model are of {_NOISE[spec.noise]}"
        )
    if spec.autoregressive and sampler.commits_ahead():
        found.append(
            f"sampler={rule} predicts behind masks, which an autoregressive model has never read; "
            "use sampler=left_to_right with sampler.threshold=null"
        )
    # With causal blocks what is stored never changes; under full attention it ages.
    if "fresh_logits" in wanted and cache.stores and spec.attention == "full":
        found.append(
            f"sampler={rule} compares a position's predictions of successive steps, which "
            f"cache={policy} makes stale; use cache=none"
        )
    if "twins" in wanted:
        if cache.stores:
            found.append(f"sampler={rule} needs masked twins in every forward; use cache=none")
        if spec.attention != "full" or spec.logit_shift:
            found.append(
                f"sampler={rule} needs full attention and unshifted logits; the model's are "
                f"{spec.attention} with a shift of {spec.logit_shift}"
            )
    supplied = cache.supplies(spec)
    if "all_logits" in supplied:
        supplied |= {"ahead_logits"}
    lacking = wanted - supplied
    found += [
        f"sampler={rule} {why}, which cache={policy} does not; use {_instead(storing, cache, spec)}"
        for need, (why, storing) in _SUPPLIED.items()
        if need in lacking
    ]
    phase = sampler.phase()
    if phase is not None and isinstance(cache, _Phased) and phase != cache.refresh_cycle:
        found.append(
            f"sampler.refresh_cycle={phase} and cache.refresh_cycle={cache.refresh_cycle} differ: "
            f"sampler={rule} and cache={policy} are refreshed by the same steps"
        )
    try:
        sampler.check_model(spec)
    except ConfigError as error:
        found.append(str(error))
    return found


def misfits(
    sampler: Sampler, cache: CachePolicy, spec: ModelSpec, gen_length: int, batch_size: int = 1
) -> list[str]:
    """`refusals`, or else why the sampler can't lay out `gen_length` positions for the model. Its
    texts are token ids already."""
    found = refusals(sampler, cache, spec, batch_size)
    if not found:
        try:
            sampler.validate(gen_length)
            sampler.layout(Prompt("", (spec.pad_id,), gen_length), spec)
        except ConfigError as error:
            found.append(str(error))
    return found


def _instead(storing: tuple[str, ...], cache: CachePolicy, spec: ModelSpec) -> str:
    """Caches to use in place of one that does not compute what a rule needs."""
    allowed = [f"cache={name}" for name in storing if spec.attention == "full"]
    if not allowed:
        return "cache=none"
    own = isinstance(cache, _Shifting) and cache.shifted_rows == "own"
    return f"{', '.join(allowed)}{' (cache.shifted_rows=previous)' * own} or cache=none"


def other_refusals(
    sampler: Sampler, others: Mapping[str, tuple[CachePolicy, ModelSpec]], own: ModelSpec
) -> list[str]:
    """One line per reason why the models beside the canvas's can't serve the sampler."""
    found = [
        f"sampler={type(sampler).__name__} asks for model {name!r}, which the session lacks"
        for name in sorted(sampler.models - others.keys())
    ]
    for name, (cache, spec) in others.items():
        if name == MODEL:
            found.append(f"model {name!r} is the canvas's own: another one needs another name")
        found += _attention(cache, spec, f"that of model {name!r}")
        try:
            sampler.check_other(name, spec, own)
        except ConfigError as error:
            found.append(str(error))
    return found


def _attention(cache: CachePolicy, spec: ModelSpec, whose: str) -> list[str]:
    if spec.attention in cache.attention:
        return []
    allowed, policy = " or ".join(sorted(cache.attention)), type(cache).__name__
    return [f"cache={policy} needs {allowed} attention; {whose} is {spec.attention}"]
