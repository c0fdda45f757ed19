"""Checkpoint folders in the public Hugging Face layout, read and written without any remote code.

A folder holds config.json and either model.safetensors or shards with model.safetensors.index.json.
Loading is strict (every tensor is consumed, every parameter filled, shapes agree) and streams: at
no time is more than the model and one tensor in memory.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig, Overrides, end_ids
from dllm.models.families import family_named, recognise
from dllm.models.family import Family
from dllm.models.json_file import read_object, read_optional
from dllm.models.placement import Placing, place
from dllm.models.shape import shape_only
from dllm.models.spec import ModelSpec
from dllm.models.tensor_file import TensorFile, write_tensors
from dllm.models.transformer import Transformer
from dllm.models.weights import Wanted, Whole, checkpoint_tensors, wanted_tensors


_DERIVED = "rotary_emb.inv_freq"
"""Tensors that some exports carry although they follow from the config."""
_EMBEDDING = "embed.weight"
"""Our input embedding, which is the output head of a tied model, too."""


def read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(f"model.path={folder} is not a folder")
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"model.path={folder} holds no config.json")
    config = read_object(path)
    # Chat models list their stop ids here (SDAR: 151645 besides 151643). Custom generation classes
    # write other keys, so it is read as plain JSON.
    further = folder / "generation_config.json"
    ends = [
        *end_ids(config.get("eos_token_id"), str(path)),
        *end_ids(read_optional(further).get("eos_token_id"), str(further)),
    ]
    if ends:
        config["eos_token_id"] = list(dict.fromkeys(ends))
    return config


def read_spec(
    folder: str | Path, overrides: Overrides | None = None, family: str | None = None
) -> ModelSpec:
    """The spec of the checkpoint in `folder`; only the names of its weights are looked at."""
    folder = Path(folder)
    path = folder / "config.json"
    config = read_config(folder)
    if overrides is None or overrides.eos_ids is None:
        _check_end_ids(folder, config)
    names = stored_names(folder)
    return spec_from_config(config, overrides, family, source=str(path), tensors=names)


def _check_end_ids(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses end ids outside the vocabulary by the file that holds them: the spec has those of
    both."""
    size = config.get("vocab_size")
    for path in (folder / "config.json", folder / "generation_config.json"):
        for token in end_ids(read_optional(path).get("eos_token_id"), str(path)):
            if isinstance(size, int) and token >= size:
                raise ConfigError(
                    f"{path}: eos_token_id={token} is outside the vocabulary [0, {size})"
                )


def spec_from_config(
    config: Mapping[str, Any],
    overrides: Overrides | None = None,
    family: str | None = None,
    source: str = "config.json",
    tensors: frozenset[str] | None = None,
) -> ModelSpec:
    """The spec that a config.json describes; `family` overrides its recognition."""
    reader = CheckpointConfig(config, source=source, overrides=overrides, tensors=tensors)
    try:
        found = family_named(family) if family else recognise(reader)
        spec = found.read(reader)
    except ConfigError as error:
        raise ConfigError(_located(str(error), reader)) from None
    except (TypeError, AttributeError, ValueError, LookupError, OverflowError) as error:
        raise ConfigError(f"{source} holds a value of the wrong kind: {error}") from None
    return reader.overrides.apply(spec)


def _located(message: str, reader: CheckpointConfig) -> str:
    """With the file, unless the message names it or an option that was given."""
    given = {name for name, value in vars(reader.overrides).items() if value is not None}
    option = message.partition("=")[0].removeprefix("model.")
    own = option in given or message.startswith(("model: ", "model.family"))
    return message if own or reader.source in message else f"{reader.source}: {message}"


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, all present."""
    index = folder / "model.safetensors.index.json"
    shards = ["model.safetensors"]
    if index.is_file():
        shards = sorted(set(_weight_map(index).values()))
    for shard in shards:
        if not (folder / shard).is_file():
            raise ConfigError(f"model.path={folder} lacks {shard}")
    return [folder / shard for shard in shards]


def _weight_map(index: Path) -> dict[str, str]:
    """File of each tensor. A file outside of the folder is refused."""
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ConfigError(f"{index} lacks a weight_map")
    for tensor, file in named.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise ConfigError(f"{index}: weight_map names {file!r} for {tensor}, no file beside it")
    return named


def stored_names(folder: Path) -> frozenset[str] | None:
    """Names of the stored tensors; None where the folder holds no weights."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return frozenset(_weight_map(index))
    if not single.is_file():
        return None
    with TensorFile(single) as file:
        return frozenset(file.entries)


def load_model(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    overrides: Overrides | None = None,
    family: str | None = None,
) -> Transformer:
    """The checkpoint in `folder`, in evaluation mode, its parameters cast to `dtype` (buffers keep
    float32).

    `device` is a torch device, or "auto": spread over the devices there are, through accelerate.
    Raises `ConfigError` for a missing or truncated file, another family, a missing, unexpected or
    misshapen tensor.
    """
    folder = Path(folder)
    spec = read_spec(folder, overrides, family)
    model = shape_only(spec)
    placing = place(model, dtype, device)
    files = tensor_files(folder)
    _fill(model, family_named(spec.family), files, dtype, placing)
    model.eval().requires_grad_(False)
    return placing.dispatch(model)


def _fill(
    model: Transformer, family: Family, files: list[Path], dtype: torch.dtype, placing: Placing
) -> None:
    state = model.state_dict()
    wanted = wanted_tensors(
        family.weights(model.spec), {name: tensor.shape for name, tensor in state.items()}
    )
    buffers = {name for name, _ in model.named_buffers()}
    filled: dict[str, Tensor] = {}
    unexpected: list[str] = []
    head, spare = None, _spare_heads(model.spec, family)
    for path in files:
        with TensorFile(path) as file:
            for name in file.entries:
                if name not in wanted:
                    if name in spare:
                        head = path, name
                    elif not (name.endswith(_DERIVED) or name.startswith(family.unread)):
                        unexpected.append(name)
                    continue
                entry = wanted.pop(name)
                for parameter in {place.parameter for place in entry.placements} - filled.keys():
                    filled[parameter] = torch.empty(
                        state[parameter].shape,
                        dtype=torch.float32 if parameter in buffers else dtype,
                        device=placing.device_of(parameter),
                    )
                _read(file, name, entry, filled)
    folder = files[0].parent
    if wanted:
        raise ConfigError(f"model.path={folder} lacks {len(wanted)} tensors: {_first(wanted)}")
    if unexpected:
        raise ConfigError(
            f"model.path={folder} has {len(unexpected)} unexpected tensors: {_first(unexpected)}"
        )
    if head is not None:
        _check_tied(*head, filled[_EMBEDDING])
    model.load_state_dict(filled, strict=True, assign=True)


def _spare_heads(spec: ModelSpec, family: Family) -> set[str]:
    """Names under which a tied checkpoint may store its head once more: the usual one and the
    family's."""
    if not spec.tied_embeddings:
        return set()
    untied = family.weights(replace(spec, tied_embeddings=False)).get("head.weight")
    return {"lm_head.weight", *([untied.name] if isinstance(untied, Whole) else [])}


def _check_tied(path: Path, name: str, embedding: Tensor) -> None:
    """A tied checkpoint may store the head once more, but no other one."""
    with TensorFile(path) as file:
        stored = file.read(name)
    if not torch.equal(stored.to(embedding.dtype), embedding.cpu()):
        raise ConfigError(
            f"{path} stores a {name} of its own, config.json ties it to the embedding: set "
            "tie_word_embeddings (LLaDA: weight_tying) to false there"
        )


def _read(file: TensorFile, name: str, wanted: Wanted, filled: Mapping[str, Tensor]) -> None:
    entry = file.entries[name]
    if entry.shape != wanted.shape:
        raise ConfigError(
            f"{file.path}: {name} has shape {list(entry.shape)}, "
            f"config.json asks for {list(wanted.shape)}"
        )
    targets = [place.target(filled[place.parameter]) for place in wanted.placements]
    whole = targets[0]
    if (
        whole.shape == entry.shape
        and whole.dtype == file.dtype(name)
        and whole.device.type == "cpu"
        and whole.is_contiguous()
    ):
        file.read_into(name, whole)
        return
    tensor = file.read(name)
    for placement, target in zip(wanted.placements, targets, strict=True):
        target.copy_(tensor[placement.taken])


def save_model(model: Transformer, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes config.json and model.safetensors in the public layout of the model's family."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family = family_named(model.spec.family)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tensors = {
        name: tensor.to(dtype).cpu().contiguous()
        for name, tensor in checkpoint_tensors(family.weights(model.spec), state).items()
    }
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    config = {**family.write(model.spec), "torch_dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def dummy_model(
    spec: ModelSpec,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Transformer:
    """A model of the spec's shape with seeded random weights, untrained."""
    model = shape_only(spec)
    for parameter in model.parameters():  # buffers keep float32
        parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1 and name.endswith(("weight", "scale")):
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


def _first(names: Iterable[str], count: int = 3) -> str:
    listed = sorted(names)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
