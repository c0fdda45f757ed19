"""Checkpoint folders in the public Hugging Face layout, read and written without any remote code.

A folder holds config.json and either model.safetensors or shards with model.safetensors.index.json.
Loading is strict: every tensor is consumed, every parameter is filled, shapes agree.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dllm.errors import ConfigError
from dllm.models.families import llada
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer


FAMILIES: tuple[ModuleType, ...] = (llada,)
_DERIVED = ("rotary_emb.inv_freq",)
"""Tensors that some exports carry although they follow from the config."""


def read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(f"model.path={folder} is not a folder")
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"model.path={folder} holds no config.json")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None


def family_of(config: dict[str, Any], folder: Path) -> ModuleType:
    """The family whose architecture name config.json gives (`model_type` is not unique)."""
    given = (config.get("architectures") or ["none"])[0]
    for family in FAMILIES:
        if given in family.ARCHITECTURES:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.ARCHITECTURES)
    raise ConfigError(f"model.path={folder}: architecture {given!r} is not one of {known}")


def read_spec(folder: str | Path) -> ModelSpec:
    folder = Path(folder)
    config = read_config(folder)
    family = family_of(config, folder)
    try:
        return family.spec(config)
    except KeyError as error:
        raise ConfigError(f"{folder / 'config.json'} lacks the key {error}") from None


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, all present."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        shards = ["model.safetensors"]
    for shard in shards:
        if not (folder / shard).is_file():
            raise ConfigError(f"model.path={folder} lacks {shard}")
    return [folder / shard for shard in shards]


def load_model(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Transformer:
    """The checkpoint in `folder`, in evaluation mode, its parameters cast to `dtype`.

    Raises `ConfigError` for a missing or truncated file, another family, a missing, unexpected or
    misshapen tensor.
    """
    folder = Path(folder)
    spec = read_spec(folder)
    family = family_of(read_config(folder), folder)
    with torch.device("meta"):
        model = Transformer(spec)
    wanted = {theirs: ours for ours, theirs in family.names(spec).items()}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    unexpected: list[str] = []
    for path in tensor_files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for theirs in file.keys():  # noqa: SIM118 - not a mapping
                    if theirs.endswith(_DERIVED):
                        continue
                    ours = wanted.pop(theirs, None)
                    if ours is None:
                        unexpected.append(theirs)
                        continue
                    tensor = file.get_tensor(theirs)
                    if tensor.shape != shapes[ours]:
                        raise ConfigError(
                            f"{path}: {theirs} has shape {list(tensor.shape)}, "
                            f"config.json asks for {list(shapes[ours])}"
                        )
                    state[ours] = tensor.to(dtype)
        except SafetensorError as error:
            raise ConfigError(f"{path} is truncated or not safetensors: {error}") from None
    if wanted:
        raise ConfigError(f"model.path={folder} lacks {len(wanted)} tensors: {_first(wanted)}")
    if unexpected:
        raise ConfigError(
            f"model.path={folder} has {len(unexpected)} unexpected tensors: {_first(unexpected)}"
        )
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def save_model(model: Transformer, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes config.json and model.safetensors in the public layout of the model's family."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family = next(f for f in FAMILIES if f.__name__.endswith(f".{model.spec.family}"))
    state = model.state_dict()
    tensors = {
        theirs: state[ours].detach().to(dtype).cpu().contiguous()
        for ours, theirs in family.names(model.spec).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**family.config(model.spec), "torch_dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _first(names: Any, count: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
