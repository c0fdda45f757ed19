"""Random compositions of parts: each decodes within the invariants, or is refused with a line.

A case is a list of command-line options. Its configuration is Hydra's composition of the groups
that it chooses (kept, since many cases choose the same) with its values put in, and it goes the way
of a run: what is refused is refused before a model is loaded.
"""

import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from dllm import config as configuration
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED
from dllm.models.loading import dummy_model, read_spec, save_model, spec_from_config
from dllm.models.spec import ModelSpec
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import fitting, loaded, outline
from dllm.runs.others import others
from dllm.runs.parts import build_parts
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy, first_eos
from dllm.step.outcome import Outcome


COUNT = 4
"""Prompts of a case."""
_QWEN = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "max_position_embeddings": 64,
}
MODELS: dict[str, dict[str, Any]] = {
    "llada": {
        "architectures": ["LLaDAModelLM"],
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 2,
        "n_kv_heads": 2,
        "mlp_hidden_size": 64,
        "max_sequence_length": 64,
        "rope_theta": 1e4,
        "rms_norm_eps": 1e-5,
    },
    "dream": {**_QWEN, "architectures": ["DreamModel"]},
    "sdar": {**_QWEN, "architectures": ["SDARForCausalLM"], "head_dim": 16, "block_size": 4},
    "wedlm": {**_QWEN, "architectures": ["WeDLMForCausalLM"], "attention_bias": True},
    "diffusion_gemma": {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "canvas_length": 4,
        "image_token_id": 2,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 64,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 16,
        },
    },
}
"""Configurations of small models of random weights: full attention without and with shifted logits,
block-causal, causal, from uniform noise."""
_ENDING = 3.0
"""Factor of an end token's logits in a model whose answers end: random weights choose one token of
hundreds alike."""
_GROUPS = {
    "sampler/region": 0.5,
    "sampler/proposer": 0.3,
    "sampler/logits_transform": 0.3,
    "cache": 0.6,
    "constraint": 0.2,
}
"""Group -> share of the cases in which another choice than the sampler's own is drawn."""
_SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}})
_PATIENT = ("constraint.check_timeout=3600.0", "constraint.compile_timeout=3600.0")
"""A check that is stopped by a clock is not equal when it is repeated."""


@dataclass(frozen=True)
class Case:
    model: str
    ending: bool
    """Whether end tokens are likely."""
    dtype: str
    groups: tuple[str, ...]
    values: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    """Lengths of prompt and answer."""
    seed: int

    @property
    def options(self) -> str:
        model = f"[model {self.model} {self.dtype}{' ending' if self.ending else ''}]"
        return " ".join((model, *self.groups, *self.values))


def fuzz(count: int, seed: int) -> Iterator[tuple[Case, str | None, str | None]]:
    """Cases with why they were refused (None = decoded) and what was wrong (None = nothing)."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, _hydra():
        models = _Models(Path(folder))
        for _ in range(count):
            case = _case(draw)
            yield case, *models.tried(case)


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra's start costs as much as three compositions."""
    running = GlobalHydra.instance().is_initialized()
    with nullcontext() if running else initialize_config_module("conf", version_base="1.3"):
        yield


def _case(draw: random.Random) -> Case:
    noisy = draw.random() < 0.05  # few parts go with this model
    sampler = "diffusion_gemma" if noisy else draw.choice(configuration.choices("sampler"))
    groups = [f"sampler={sampler}"]
    for group, share in _GROUPS.items():
        if draw.random() < share:
            chosen = draw.choice(configuration.choices(group))
            place = group
            if group.startswith("sampler/") and "base" in _composed((groups[0],)).sampler:
                place = f"{group}@sampler.base.{group.removeprefix('sampler/')}"
            groups.append(f"{place}={chosen}")
    batch = draw.choice((1, 2, 3, 4))
    values = [f"batch_size={batch}", f"seed={draw.randrange(100)}"]
    values.append(f"eos={draw.choice(list(EosPolicy))}")
    if any(group.startswith("constraint=") and group != "constraint=none" for group in groups):
        values += [*_PATIENT, *_constraining(draw)]
    with suppress(ConfigError):  # groups that do not compose are the case's refusal
        values += _values(_composed(tuple(groups)), draw)
    length = draw.choice((1, 4, 7, 8, 12, 16))
    prompts = tuple((draw.randint(1, 14), length) for _ in range(COUNT))
    return Case(
        "diffusion_gemma" if noisy else draw.choice(list(MODELS)),
        draw.random() < 0.5,
        draw.choices(("float32", "bfloat16"), (3, 1))[0],
        tuple(groups),
        (*values, f"gen_length={length}"),
        prompts,
        draw.randrange(1 << 30),
    )


def _constraining(draw: random.Random) -> Iterator[str]:
    """Options that all constraints have."""
    for name, values in (
        ("method", ("cfg", "lave")),
        ("gap", ("tokens", "any")),
        ("patience", (1, 2, None)),
        ("budget", (None, 3)),
        ("on_timeout", ("reject", "accept")),
    ):
        if draw.random() < 0.4:
            yield f"constraint.{name}={_spelled(draw.choice(values))}"


_LENGTHS = (None, 1, 2, 4, 5, 8, 16)
_SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def _values(config: DictConfig, draw: random.Random) -> Iterator[str]:
    """Values of some of the options: lengths, shares, and ids in place of texts."""
    for part in ("sampler", "cache"):
        for path, value in _leaves(config[part], part):
            name = path.rpartition(".")[2]
            if name.endswith("_ids") and name != "eot_ids":
                yield f"{path}=[3,5]"
            elif name == "narrow_blocks":
                yield f"{path}=pad"
            elif name in ("block_length", "default_block_length", "steps", "window", "active"):
                if value == 32 or draw.random() < 0.5:
                    yield f"{path}={_spelled(draw.choice(_LENGTHS))}"
            elif name in ("initial_length", "final_gen_length"):
                yield f"{path}={draw.choice((4, 8))}"
            elif name.endswith("threshold") and isinstance(value, float) and draw.random() < 0.4:
                yield f"{path}={draw.choice(_SHARES)}"
            elif name in ("refresh_cycle", "outer_window", "current_k") and draw.random() < 0.5:
                yield f"{path}={draw.choice((1, 3, 8))}"
            elif name == "conf_dtype" and draw.random() < 0.4:
                yield f"{path}={draw.choice(('float64', 'float32', 'model'))}"
            elif name == "cfg_scale" and draw.random() < 0.2:
                yield f"{path}=1.5"


def _spelled(value: int | str | None) -> str:
    return "null" if value is None else str(value)


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(config[key], f"{prefix}.{key}")
        elif key != "_target_":
            yield f"{prefix}.{key}", value


@cache
def _composed(groups: tuple[str, ...]) -> DictConfig:
    return configuration.compose([*groups, "tracker=none", "model=checkpoint"])


class _Models:
    """Random models with the embedded tokenizer, each written once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checkpoints: dict[tuple[str, bool, str], Checkpoint] = {}

    def tried(self, case: Case) -> tuple[str | None, str | None]:
        """Why the case is refused, and what is wrong with what it does."""
        try:
            decoding, prompts = self._prepared(case)
        except ConfigError as error:
            line = str(error)
            named = re.search(r"\b[a-z_]+(?:[./@][a-z_]+)*=|\b[a-z_]+[./][a-z_./]+", line)
            return line, None if named and "\n" not in line else f"names no option: {line}"
        except Exception as error:
            return None, f"{type(error).__name__} before decoding: {error}"
        try:
            return None, wrong(case, decoding, prompts)
        except Exception as error:
            return None, f"{type(error).__name__} while decoding: {error}"

    def _prepared(self, case: Case) -> tuple[Decoder, list[Prompt]]:
        """Raises `ConfigError` for what a run would refuse before it loads its model."""
        config = _composed(case.groups).copy()
        checkpoint = self._checkpoint(case.model, case.ending, case.dtype)
        config.model.path, config.model.dtype = str(checkpoint.folder), case.dtype
        config.model.device = "cpu"
        for option in case.values:
            path, _, value = option.partition("=")
            OmegaConf.update(config, path, _parsed(value))
        configuration.check_complete(config)
        parts = build_parts(config)
        sampler = fitting(config, parts, checkpoint)
        parts, beside = replace(parts, sampler=sampler), others(config, sampler, checkpoint)
        with configuration.full_paths(config.sampler, "sampler"):
            told = outline(config, parts, checkpoint, beside)
            prompts = _prompts(case, checkpoint.spec)
            told.check(prompts)
        return loaded(told, checkpoint, beside), prompts

    def _checkpoint(self, model: str, ending: bool, dtype: str) -> Checkpoint:
        if (model, ending, dtype) not in self._checkpoints:
            folder = self._folder / (f"{model}-ending" if ending else model)
            if not folder.exists():
                _write(MODELS[model], folder, _ENDING if ending else 1.0)
            options = configuration.compose(["model=checkpoint", f"model.path={folder}"]).model
            options.dtype, options.device = dtype, "cpu"
            found = configuration.build(options, "model")
            self._checkpoints[model, ending, dtype] = Checkpoint(found)
        return self._checkpoints[model, ending, dtype]


def _parsed(value: str) -> Any:
    return OmegaConf.create([]) if value == "[]" else OmegaConf.from_dotlist([f"x={value}"]).x


def _write(config: dict[str, Any], folder: Path, ending: float) -> None:
    """Weights large enough that some predictions are sure and others are not.

    ending: factor of the end tokens' logits
    """
    embedded = EMBEDDED / "tiny-llada"
    like = read_spec(embedded)
    vocabulary = {
        "vocab_size": like.vocab_size,
        "embedding_size": like.vocab_size,
        "eos_token_id": list(like.eos_ids),
        "pad_token_id": like.pad_id,
        "mask_token_id": like.mask_id,
    }
    if "text_config" in config:
        config = {**config, "text_config": {**config["text_config"], **vocabulary}}
    model = dummy_model(spec_from_config({**config, **vocabulary}))
    generator = torch.Generator().manual_seed(0)
    names = [name for name, _ in model.named_parameters()]
    logits = "head.weight" if "head.weight" in names else "embed.weight"
    # What a model with self-conditioning has predicted it reads: rounding would grow from step to
    # step, and be another answer in another batch.
    wide, narrow = (0.5, 0.1) if model.spec.noise == "uniform" else (0.7, 0.3)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            weight.data.normal_(0.0, wide if name == logits else narrow, generator=generator)
        if name == logits:
            weight.data[list(like.eos_ids)] *= ending
    save_model(model, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((embedded / name).read_bytes())


def _prompts(case: Case, spec: ModelSpec) -> list[Prompt]:
    generator = torch.Generator().manual_seed(case.seed)
    special = {spec.mask_id, spec.pad_id, *spec.eos_ids, *spec.image_ids}
    plain = torch.tensor([token for token in range(spec.vocab_size) if token not in special])

    def text(length: int) -> tuple[int, ...]:
        return tuple(plain[torch.randint(len(plain), (length,), generator=generator)].tolist())

    return [
        Prompt(f"s{number}", text(length), answer, reference=text(answer), schema=_SCHEMA)
        for number, (length, answer) in enumerate(case.prompts)
    ]


def wrong(case: Case, setting: Decoder, prompts: Sequence[Prompt]) -> str | None:
    """The first invariant that does not hold."""
    together = _decoded(setting, prompts)
    for prompt in prompts:
        for problem in contradictions(together[prompt.sample_id], prompt, setting):
            return f"{prompt.sample_id}: {problem}"
    if found := difference(together, _decoded(setting, prompts)):
        return f"repeated: {found}"
    if setting.batch_size == 1 or case.dtype != "float32" or "cache=dllm_cache" in case.groups:
        return None  # no more is promised: docs/determinism.md
    for what, other in (
        ("alone", _decoded(replace(setting, batch_size=1), prompts)),
        ("in the other order", _decoded(setting, prompts[::-1])),
    ):
        if found := difference(together, other):
            return f"{what}: {found}"
    return None


def _decoded(setting: Decoder, prompts: Sequence[Prompt]) -> dict[str, Outcome]:
    return {outcome.sample_id: outcome for outcome in replace(setting, record=True).decode(prompts)}


def difference(some: dict[str, Outcome], others: dict[str, Outcome]) -> str | None:
    """The first sample that is not decoded alike."""
    for name, one in some.items():
        other = others.get(name)
        if other is None:
            return f"{name} is missing"
        if one.tokens != other.tokens or one.failure != other.failure:
            return f"{name} has other tokens: {one.tokens} and {other.tokens}"
        if one.cost.nfe != other.cost.nfe:
            return f"{name} has {one.cost.nfe} and {other.cost.nfe} forwards"
    return None


def contradictions(outcome: Outcome, prompt: Prompt, setting: Decoder) -> Iterator[str]:
    """What an answer can't be."""
    spec, trace = setting.predictor.spec, outcome.trace
    if outcome.failure is not None:
        if setting.constraint is None:
            yield f"failed: {outcome.failure}"
        return
    # Behind an end token the policies that stop there leave masks.
    if spec.mask_id in outcome.tokens[: first_eos(np.array(outcome.tokens), spec.eos_ids)]:
        yield f"a mask is left: {outcome.tokens}"
    for token in outcome.tokens:
        if not 0 <= token < spec.vocab_size:
            yield f"token {token} is outside the vocabulary"
    room = max(setting.admit(prompt)[1].capacity, len(prompt.tokens) + prompt.gen_length)
    decisions = setting.sampler.max_steps(room) or room
    most = len(outcome.phases()) * 4 * (decisions + room)
    if outcome.cost.nfe > most:
        yield f"{outcome.cost.nfe} forwards, more than {most}"
    assert trace is not None
    mask, canvas = trace.mask_id, [trace.mask_id] * trace.gen_length
    for step, after in zip(trace.steps, trace.replay(), strict=True):
        inside = [at for at in step.positions if at < len(canvas)]
        if len(set(step.positions)) < len(step.positions) or any(canvas[i] != mask for i in inside):
            yield f"a position is committed twice: {step.positions}"
        canvas = after.tolist()
    if tuple(canvas[: len(outcome.tokens)]) != outcome.tokens:
        yield f"the trace rebuilds {canvas}, decoded was {outcome.tokens}"
