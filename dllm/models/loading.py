"""Checkpoint folders in the public Hugging Face layout, read and written without any remote code.

A folder holds config.json and either model.safetensors or shards with model.safetensors.index.json.
Loading is strict (every tensor is consumed, every parameter filled, shapes agree) and streams: at
no time is more than the model and one tensor in memory.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.config_reader import CheckpointConfig, Overrides
from dllm.models.families import family_named, recognise
from dllm.models.family import Family
from dllm.models.placement import Placing, place
from dllm.models.shape import shape_only
from dllm.models.spec import ModelSpec
from dllm.models.tensor_file import TensorFile
from dllm.models.transformer import Transformer
from dllm.models.weights import Wanted, checkpoint_tensors, wanted_tensors


_DERIVED = "rotary_emb.inv_freq"
"""Tensors that some exports carry although they follow from the config."""


def read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(f"model.path={folder} is not a folder")
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"model.path={folder} holds no config.json")
    config = _json(path)
    # Chat models list their stop ids here (SDAR: 151645 besides 151643). Custom generation classes
    # write other keys, so it is read as plain JSON.
    path = folder / "generation_config.json"
    stops = _json(path).get("eos_token_id") if path.is_file() else None
    if isinstance(stops, list) and isinstance(config.get("eos_token_id"), int):
        config["eos_token_id"] = list(dict.fromkeys([config["eos_token_id"], *stops]))
    return config


def read_spec(
    folder: str | Path, overrides: Overrides | None = None, family: str | None = None
) -> ModelSpec:
    """The spec of the checkpoint in `folder`; only the names of its weights are looked at."""
    folder = Path(folder)
    path = folder / "config.json"
    config = read_config(folder)
    names = stored_names(folder)
    return spec_from_config(config, overrides, family, source=str(path), tensors=names)


def spec_from_config(
    config: Mapping[str, Any],
    overrides: Overrides | None = None,
    family: str | None = None,
    source: str = "config.json",
    tensors: frozenset[str] | None = None,
) -> ModelSpec:
    """The spec that a config.json describes; `family` overrides its recognition."""
    reader = CheckpointConfig(config, source=source, overrides=overrides, tensors=tensors)
    found = family_named(family) if family else recognise(reader)
    return reader.overrides.apply(found.read(reader))


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, all present."""
    index = folder / "model.safetensors.index.json"
    shards = ["model.safetensors"]
    if index.is_file():
        try:
            shards = sorted(set(_json(index)["weight_map"].values()))
        except (KeyError, AttributeError, TypeError):
            raise ConfigError(f"{index} lacks a weight_map") from None
    for shard in shards:
        if not (folder / shard).is_file():
            raise ConfigError(f"model.path={folder} lacks {shard}")
    return [folder / shard for shard in shards]


def stored_names(folder: Path) -> frozenset[str] | None:
    """Names of the stored tensors; None where the folder holds no weights."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return frozenset(_json(index).get("weight_map", {}))
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
    for path in files:
        with TensorFile(path) as file:
            for name in file.entries:
                if name not in wanted:
                    if not _ignored(name, model.spec):
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
    model.load_state_dict(filled, strict=True, assign=True)


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


def _ignored(name: str, spec: ModelSpec) -> bool:
    # A tied checkpoint may store the head once more; the official classes overwrite it.
    return name.endswith(_DERIVED) or (spec.tied_embeddings and name == "lm_head.weight")


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
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**family.write(model.spec), "torch_dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def dummy_model(
    spec: ModelSpec,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Transformer:
    """A model of the spec's shape with seeded random weights, for timing without a checkpoint."""
    model = shape_only(spec)
    for parameter in model.parameters():  # buffers keep float32
        parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1 and name.endswith("weight"):
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None


def _first(names: Iterable[str], count: int = 3) -> str:
    listed = sorted(names)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
