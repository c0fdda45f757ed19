"""Low-rank adapters (LoRA, arXiv 2106.09685): a base model turned into a block-diffusion model.

Every linear layer W of the base becomes W + scale * B A; the mask token gets an embedding of its
own. A folder holds adapter.json and adapter.safetensors (`layers.0.attn.q.a` [rank, in], `....b`
[out, rank], `mask` [d_model]). For decoding the product is added to the weights once: an adapted
model costs what its base costs.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from dllm.errors import ConfigError
from dllm.models.linear import product
from dllm.models.spec import ModelSpec
from dllm.models.tensor_file import TensorFile, write_tensors
from dllm.models.transformer import Layer, Transformer


MASK = "mask"
"""Name of the mask token's embedding among the tensors."""


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """What an adapter makes of its base."""

    base: str
    """`model.name` of the model it was trained on."""
    rank: int
    scale: float
    mask_id: int
    """An id that the base never uses."""
    block_size: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"adapter.{field.name}={value!r} is not a whole number")
        if self.mask_id < 0:
            raise ConfigError(f"adapter.mask_id={self.mask_id} must be >= 0")
        if self.rank < 1 or self.block_size < 1:
            raise ConfigError(
                f"adapter.rank={self.rank}, adapter.block_size={self.block_size} must be >= 1"
            )

    def of(self, base: ModelSpec) -> ModelSpec:
        """The base with attention inside blocks and a mask; logits stay shifted: the row before a
        position predicts it, as in the base."""
        return replace(
            base, attention="block_causal", block_size=self.block_size, mask_id=self.mask_id
        )


class LowRank(nn.Module):
    """A frozen linear layer and what is learnt beside it."""

    def __init__(self, linear: nn.Linear, spec: AdapterSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.linear, self.scale = linear, spec.scale
        a = torch.randn(spec.rank, linear.in_features, generator=generator)
        self.a = nn.Parameter(a / linear.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, spec.rank))

    def forward(self, x: Tensor) -> Tensor:
        low = product(x, (self.a * self.scale).to(x.dtype))
        return self.linear(x).add_(product(low, self.b.to(x.dtype)))


class MaskEmbedding(nn.Module):
    """A frozen embedding, but for the mask token's."""

    def __init__(self, embed: nn.Embedding, mask_id: int) -> None:
        super().__init__()
        self.embed, self.mask_id = embed, mask_id
        self.mask = nn.Parameter(embed.weight.float().mean(0))

    @property
    def weight(self) -> Tensor:
        return self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.embed(tokens)
        return torch.where((tokens == self.mask_id)[..., None], self.mask.to(found.dtype), found)


class Adapted(nn.Module):
    """A transformer with an adapter in training: the base is frozen, what is learnt is float32."""

    def __init__(self, base: Transformer, spec: AdapterSpec, seed: int) -> None:
        super().__init__()
        self.spec, self.base = spec, base
        base.requires_grad_(False)
        base.spec = spec.of(base.spec)
        generator = torch.Generator().manual_seed(seed)
        self._parts: dict[str, LowRank] = {}
        for name, linear in _linears(base).items():
            parent, _, leaf = name.rpartition(".")
            part = LowRank(linear, spec, generator)
            setattr(base.get_submodule(parent), leaf, part)
            self._parts[name] = part
        self.embedding = MaskEmbedding(base.embed, spec.mask_id)
        base.embed = cast(nn.Embedding, self.embedding)

    def tensors(self) -> dict[str, Tensor]:
        """Name -> what is learnt."""
        found: dict[str, Tensor] = {MASK: self.embedding.mask}
        for name, part in self._parts.items():
            found |= {f"{name}.a": part.a, f"{name}.b": part.b}
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., d_model] -> [..., vocab]; a tied head knows the mask by its new embedding."""
        out = self.base.logits(hidden)
        if self.base.spec.tied_embeddings:
            out[..., self.spec.mask_id] = hidden @ self.embedding.mask.to(hidden.dtype)
        return out


def save_adapter(folder: Path, spec: AdapterSpec, tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: t.detach().to(torch.bfloat16).contiguous() for name, t in tensors.items()}
    write_tensors(folder / "adapter.safetensors", stored, {"format": "pt"})
    (folder / "adapter.json").write_text(json.dumps(asdict(spec), indent=2) + "\n")


def read_adapter(folder: Path) -> AdapterSpec:
    path = folder / "adapter.json"
    if not path.is_file():
        raise ConfigError(f"model.adapter={folder} holds no adapter.json")
    try:
        return AdapterSpec(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not valid: {error}") from None


def merge(model: Transformer, folder: Path) -> None:
    """Adds the adapter in `folder` to a base model's weights, in place, products in float32."""
    spec, tensors = _stored(model, folder)
    for name, linear in _linears(model).items():
        a, b = tensors[f"{name}.a"].float(), tensors[f"{name}.b"].float()
        weight = linear.weight.data
        weight.copy_(weight.float() + (spec.scale * b @ a).to(weight.device))
    model.embed.weight.data[spec.mask_id] = tensors[MASK].to(model.embed.weight)
    model.spec = spec.of(model.spec)


def beside(base: Transformer, folder: Path) -> Transformer:
    """The adapted model on the base's own weights, which stay as they are: in memory once for both.
    A forward costs the low-rank products more than a merged model's."""
    spec, tensors = _stored(base, folder)
    with torch.device("meta"):
        model = _Beside(base.spec)
    model.load_state_dict(base.state_dict(), assign=True)
    for name, linear in _linears(model).items():
        parent, _, leaf = name.rpartition(".")
        part = LowRank(linear, spec, torch.Generator())
        for factor, own in (("a", part.a), ("b", part.b)):
            own.data = tensors[f"{name}.{factor}"].to(linear.weight.device, torch.float32)
        setattr(model.get_submodule(parent), leaf, part)
    embedding = MaskEmbedding(model.embed, spec.mask_id)
    embedding.mask.data = tensors[MASK].to(model.embed.weight.device, torch.float32)
    model.embed = cast(nn.Embedding, embedding)
    model.spec = spec.of(base.spec)
    return model.requires_grad_(False).eval()


class _Beside(Transformer):
    """A tied head knows the mask by its new embedding."""

    def logits(self, hidden: Tensor) -> Tensor:
        out = super().logits(hidden)
        if self.spec.tied_embeddings:
            mask = cast(MaskEmbedding, self.embed).mask
            out[..., self.spec.mask_id] = hidden @ mask.to(hidden.dtype)
        return out


def _stored(model: Transformer, folder: Path) -> tuple[AdapterSpec, dict[str, Tensor]]:
    """The adapter in `folder`, if it is one of this base."""
    spec = read_adapter(folder)
    path = folder / "adapter.safetensors"
    if not path.is_file():
        raise ConfigError(f"model.adapter={folder} holds no adapter.safetensors")
    shapes: dict[str, tuple[int, ...]] = {MASK: (model.spec.d_model,)}
    for name, linear in _linears(model).items():
        shapes[f"{name}.a"] = (spec.rank, linear.in_features)
        shapes[f"{name}.b"] = (linear.out_features, spec.rank)
    with TensorFile(path) as file:
        found = {name: entry.shape for name, entry in file.entries.items()}
        for name in sorted(shapes.keys() | found.keys()):
            if shapes.get(name) != found.get(name):
                raise ConfigError(
                    f"{path}: {name} has the shape {found.get(name)}, the base asks for "
                    f"{shapes.get(name)}"
                )
        return spec, {name: file.read(name) for name in shapes}


def _linears(model: Transformer) -> dict[str, nn.Linear]:
    """Linear layers that are adapted: all but the head."""
    found = {}
    for index, layer in enumerate(cast(list[Layer], list(model.layers))):
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                found[f"layers.{index}.{name}"] = module
    return found
