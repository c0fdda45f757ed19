"""From the options of the `model` group to a loaded model: embedded, local folder, hub, or package.

Only safetensors, JSON, text and Jinja files are downloaded; code never is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from dllm.errors import ConfigError
from dllm.models.adapter import merge, read_adapter
from dllm.models.config_reader import Overrides
from dllm.models.families import family_named
from dllm.models.loading import dummy_model, load_model, read_spec, spec_from_config
from dllm.models.packaged import PACKAGES, fetched
from dllm.models.presets import preset_config
from dllm.models.spec import NO_MASK, ModelSpec
from dllm.models.tokenizers import Tokenizer, check_ids, load_tokenizer, with_format
from dllm.models.transformer import Transformer


ALLOWED_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")
EMBEDDED = Path(__file__).parent / "tiny"
"""Folder of the models that come with the package."""
ADAPTERS = Path(__file__).parent / "adapters"
"""Folder of the adapters that do, each named as the model that it makes of its base."""


@dataclass(frozen=True)
class ModelOptions:
    """The options of the `model` group."""

    name: str
    path: str | None = None
    """Checkpoint folder; wins over `hub`."""
    hub: str | None = None
    """Hub id; without it and `path`, `name` is an embedded model."""
    revision: str = "main"
    preset: str | None = None
    """Shipped architecture, so that `scripts.inspect` needs no weights."""
    family: str | None = None
    """Where config.json does not tell the family."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    """cpu, cuda, cuda:N, or auto: spread over what there is."""
    mask_id: int | None = None
    block_size: int | None = None
    eos_ids: list[int] | None = None
    chat: str | None = None
    """One of the built-in chat formats instead of the folder's template."""
    norm_weight_fp32: bool | None = None
    rope_fp32: bool | None = None
    logit_shift: int | None = None
    """1 = a causal model's next-token predictions."""
    random: int | None = None
    """Seed of random weights in place of the checkpoint's: an untrained model of its shape."""
    compile: Literal["graphs"] | None = None
    """graphs = forwards of one shape are recorded and replayed (CUDA graphs)."""
    adapter: str | None = None
    """Folder of a low-rank adapter; without it, `path` and `hub`, one may be embedded as `name`."""

    def __post_init__(self) -> None:
        if self.device != "auto" and not _computing(self.device):
            raise ConfigError(
                f"model.device={self.device} computes nothing; use cpu, cuda, cuda:N or auto"
            )
        if self.compile is not None and not self.device.startswith("cuda"):
            raise ConfigError(
                f"model.compile={self.compile} records what one GPU computes, not "
                f"model.device={self.device}; set model.device=cuda or cuda:N, or "
                "model.compile=null"
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def overrides(self) -> Overrides:
        eos_ids = None if self.eos_ids is None else tuple(self.eos_ids)
        return Overrides(
            mask_id=self.mask_id,
            block_size=self.block_size,
            eos_ids=eos_ids,
            norm_weight_fp32=self.norm_weight_fp32,
            rope_fp32=self.rope_fp32,
            logit_shift=self.logit_shift,
        )


def open_model(options: ModelOptions | Mapping[str, Any]) -> tuple[Transformer, Tokenizer]:
    """The model on its device and the tokenizer, checked against each other."""
    options = _options(options)
    folder = checkpoint_folder(options)
    spec = folder_spec(options, folder)
    # The tokenizer first: a wrong folder should not cost minutes of loading.
    tokenizer = open_tokenizer(options, spec, folder)
    if options.random is not None:
        device = "cpu" if options.device == "auto" else options.device
        model = dummy_model(spec, options.torch_dtype, device, options.random)
        model.graphs = options.compile == "graphs"
        return model, tokenizer
    model = load_model(
        folder,
        options.torch_dtype,
        options.device,
        overrides=options.overrides,
        family=options.family,
    )
    adapter = adapter_folder(options)
    if adapter is not None:
        merge(model, adapter)
        model.spec = spec
    model.graphs = options.compile == "graphs"
    return model, tokenizer


def _computing(device: str) -> bool:
    """Whether torch has a device of that name that holds values, here or elsewhere."""
    try:
        return torch.device(device).type != "meta"
    except RuntimeError:
        return False


def open_tokenizer(options: ModelOptions, spec: ModelSpec, folder: Path) -> Tokenizer:
    family = family_named(spec.family)
    tokenizer = load_tokenizer(folder, family.chat)
    exempt = options.mask_id is not None or not family.mask_in_tokenizer
    check_ids(
        tokenizer, spec.vocab_size, NO_MASK if exempt else spec.mask_id, f"model.path={folder}"
    )
    return with_format(tokenizer, options.chat) if options.chat else tokenizer


def open_spec(options: ModelOptions | Mapping[str, Any]) -> ModelSpec:
    """The architecture alone: from the folder's config.json, else the shipped preset, else the
    hub's config.json. Needs no weights."""
    options = _options(options)
    if options.path is None and options.preset is not None:
        source, config = f"preset {options.preset}", preset_config(options.preset)
        return _checked(spec_from_config(config, options.overrides, source=source), options)
    if options.path is None and options.hub is not None:
        folder = Path(_download(options.hub, options.revision, "config.json")).parent
    else:
        folder = checkpoint_folder(options)
    return folder_spec(options, folder)


def folder_spec(options: ModelOptions, folder: Path) -> ModelSpec:
    """What the checkpoint in `folder` is, with the adapter that the options give it."""
    spec = read_spec(folder, options.overrides, options.family)
    adapter = adapter_folder(options)
    if adapter is not None:
        made = read_adapter(adapter)
        given = {"mask_id": options.mask_id, "block_size": options.block_size}
        spec = replace(made, **{k: v for k, v in given.items() if v is not None}).of(spec)
    return _checked(spec, options)


def _checked(spec: ModelSpec, options: ModelOptions) -> ModelSpec:
    """Refuses a block size that the model has no use for, and recording what differs from forward
    to forward."""
    if options.block_size is not None and spec.block_size is None:
        raise ConfigError(
            f"model.block_size={options.block_size}: {options.name} has {spec.attention} "
            "attention, which knows no blocks"
        )
    if options.compile is not None and (spec.moe is not None or spec.noise != "mask"):
        why = "chooses its experts" if spec.moe is not None else "reads the block"
        raise ConfigError(
            f"model.compile={options.compile}: the {spec.family} model {why} anew in each forward; "
            "set model.compile=null"
        )
    return spec


def adapter_folder(options: ModelOptions) -> Path | None:
    """Where the model's adapter lies; None = it has none."""
    if options.adapter is not None:
        return Path(options.adapter).expanduser()
    folder = ADAPTERS / options.name
    embedded = options.path is None and options.hub is None
    return folder if embedded and (folder / "adapter.json").is_file() else None


def checkpoint_folder(options: ModelOptions) -> Path:
    """The local folder of the checkpoint, downloaded if it has to be.

    Raises `ConfigError` naming the missing file and `model.path` where the hub can't be reached.
    """
    if options.path is not None:
        return Path(options.path).expanduser()
    if options.hub is None:
        name = _base(options)
        if name in PACKAGES:
            return fetched(name)
        folder = EMBEDDED / name
        if not folder.is_dir():
            known = sorted(f.name for f in EMBEDDED.glob("*") if (f / "config.json").is_file())
            known += sorted(f.name for f in ADAPTERS.glob("*") if (f / "adapter.json").is_file())
            raise ConfigError(
                f"model.name={options.name} is not embedded ({', '.join(known) or 'none is'}): "
                "set model.path or model.hub"
            )
        return folder
    _download(options.hub, options.revision, "config.json")
    return Path(_download(options.hub, options.revision, None))


def _base(options: ModelOptions) -> str:
    """Name of the model in the package whose weights are loaded.

    Raises `ConfigError` for an adapter of another one.
    """
    embedded = adapter_folder(replace(options, adapter=None))
    name = options.name if embedded is None else read_adapter(embedded).base
    if options.adapter is not None:
        made_for = read_adapter(Path(options.adapter).expanduser()).base
        if made_for != name:
            raise ConfigError(
                f"model.adapter={options.adapter} was trained for {made_for}, not for {name}: set "
                f"model={made_for}, or model.path to its checkpoint"
            )
    return name


def _download(hub: str, revision: str, file: str | None) -> str:
    """Local path of one file, or of the whole checkpoint if `file` is None."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = file or "its weights"
    offline = not _reachable()
    try:
        if file is not None:
            return hf_hub_download(hub, file, revision=revision, local_files_only=offline)
        return snapshot_download(
            hub,
            revision=revision,
            allow_patterns=list(ALLOWED_FILES),
            local_files_only=offline,
        )
    except GatedRepoError:
        why = "the repository asks for an accepted licence and a token"
    except RevisionNotFoundError:
        why = f"there is no model.revision={revision}"
    except RepositoryNotFoundError:
        why = "there is no such repository"
    except HFValidationError as error:
        why = str(error).splitlines()[0]
    except OSError:
        # No network, offline mode and server errors all end here.
        why = "the hub can't be reached"
    raise ConfigError(
        f"model.hub={hub}: {wanted} can't be fetched ({why}): "
        "set model.path to a local copy of the checkpoint"
    )


def _reachable(seconds: float = 5.0) -> bool:
    """Whether the hub answers. Asked first, because its client retries for half a minute before it
    falls back to the files it has."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception:  # of httpx or requests, depending on the client's version
        return False
    return True


def _options(options: ModelOptions | Mapping[str, Any]) -> ModelOptions:
    if isinstance(options, ModelOptions):
        return options
    from omegaconf import DictConfig

    from dllm.config import build

    return build(options if isinstance(options, DictConfig) else DictConfig(options), "model")
