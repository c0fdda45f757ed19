"""Learn2PD's filter network and its files: confidences of a block in, "already final?" logits out.

z = W2 relu(W1 c + b1) + b2 in float32, all layers block x block (2,112 parameters at block 32);
depth 1 is one linear map. Files are safetensors with the state-dict names of the official module
(linear1.weight, ...) and a description in the header; nothing is ever unpickled.
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.models.tensor_file import write_tensors


Feature = Literal["confidence", "negative_entropy"]
FILE_NAME = "filter.safetensors"
TINY = Path(__file__).parent / "tiny"
SHIPPED = "learn2pd"
"""Folder of a filter within its embedded model's: it is no part of the checkpoint."""


@dataclass(frozen=True)
class FilterFacts:
    """What a filter was trained on."""

    block_length: int
    depth: int = 2
    feature: Feature = "confidence"
    """`negative_entropy` with 0 at decoded positions is the Dream variant."""
    conf_dtype: str | None = None
    """dtype of the softmax behind the features; None = unknown."""
    model: str | None = None
    """`model_signature` of the model; None = unknown (a converted file)."""


def model_signature(spec: ModelSpec) -> str:
    """What tells models apart as far as a filter is concerned."""
    return f"{spec.family} {spec.n_layers}x{spec.d_model}, vocabulary {spec.vocab_size}"


class FilterNetwork(nn.Module):
    def __init__(self, facts: FilterFacts):
        super().__init__()
        self.facts = facts
        width = facts.block_length
        for number in range(1, facts.depth + 1):
            setattr(self, f"linear{number}", nn.Linear(width, width))

    def forward(self, c: Float[Tensor, "batch block"]) -> Float[Tensor, "batch block"]:
        """Logits; narrower inputs are padded with zeros on the right and the output cut back."""
        z = F.pad(c.float(), (0, self.facts.block_length - c.shape[1]))
        for number in range(1, self.facts.depth + 1):
            z = getattr(self, f"linear{number}")(z if number == 1 else z.relu())
        return z[:, : c.shape[1]]


def save_filter(network: FilterNetwork, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    write_tensors(path, weights, {"filter": json.dumps(asdict(network.facts))})


def find_filter(name: str) -> Path:
    """A filter file, or the one shipped with an embedded model of that name.

    Raises `ConfigError` if there is neither.
    """
    for path in (Path(name), Path(name) / FILE_NAME, TINY / name / SHIPPED / FILE_NAME):
        if path.is_file():
            return path
    shipped = sorted(path.parts[-3] for path in TINY.glob(f"*/{SHIPPED}/{FILE_NAME}"))
    raise ConfigError(
        f"sampler.filter={name} is no file and no shipped filter ({', '.join(shipped) or 'none'})"
    )


def load_filter(path: Path) -> FilterNetwork:
    """A network in evaluation mode, read once: a sampler is built anew for every text in it.

    Raises `ConfigError` for a file that is no filter.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    return _read(path, (state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=4)
def _read(path: Path, stamp: tuple[int, int, int]) -> FilterNetwork:
    """`stamp` tells one state of the file from another."""
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get("filter")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {type(error).__name__}") from None
    except SafetensorError as error:
        raise ConfigError(f"{path} is no safetensors file: {error}") from None
    return filter_from_weights(weights, path, json.loads(described) if described else {})


def filter_from_weights(
    weights: dict[str, Tensor], path: Path, described: dict[str, object]
) -> FilterNetwork:
    """A network from a state dict; block length and depth are read from the shapes."""
    depth = len(weights) // 2
    width = weights["linear1.weight"].shape[-1] if "linear1.weight" in weights else 0
    expected = {
        f"linear{number}.{part}": shape
        for number in range(1, depth + 1)
        for part, shape in (("weight", (width, width)), ("bias", (width,)))
    }
    if not depth or {name: tuple(w.shape) for name, w in weights.items()} != expected:
        raise ConfigError(f"{path} is no Learn2PD filter: it holds {sorted(weights)}")
    facts = FilterFacts(**{**described, "block_length": width, "depth": depth})  # type: ignore[arg-type]
    network = FilterNetwork(facts)
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval()


def convert_torch_filter(path: Path) -> FilterNetwork:
    """A published filter (`.pth` state dict), read by torch's restricted loader only.

    Raises `ConfigError` for a file that holds anything but tensors.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file it refuses
        raise ConfigError(
            f"{path} can't be read as tensors only: {error}".splitlines()[0]
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ConfigError(f"{path} is no state dict")
    return filter_from_weights({name: w.float() for name, w in weights.items()}, path, {})


def effective_threshold(network: FilterNetwork, accept: float) -> float:
    """The plain threshold that the filter amounts to: one confidence varied in steps of 0.01
    with the others fixed (all 1, all 0.9, all 0.3, 1 before and 0.3 after), the smallest
    accepted value, median over positions and contexts. 1.01 = nothing is
    accepted."""
    width = network.facts.block_length
    place = torch.arange(width)
    contexts = [torch.full((width, width), value) for value in (1.0, 0.9, 0.3)]
    contexts.append(torch.where(place < place[:, None], 1.0, 0.3))
    values = torch.linspace(0, 1, 101)
    smallest = []
    with torch.no_grad():
        for context in contexts:  # row i: what surrounds position i
            c = context.repeat(len(values), 1, 1)
            c[:, place, place] = values[:, None]
            accepted = network(c.flatten(0, 1)).sigmoid().view(c.shape)[:, place, place] > accept
            smallest.append(torch.where(accepted, values[:, None], 1.01).amin(dim=0))
    return round(torch.cat(smallest).median().item(), 2)


PUBLISHED_PROBES = (
    # equal confidences, positions accepted at 0.96 and at 0.90, probability at positions 0, 1, 31
    (0.70, 0, 32, (0.9069, 0.9085, 0.9380)),
    (0.80, 18, 32, (0.9366, 0.9560, 0.9698)),
    (0.85, 31, 32, (0.9479, 0.9698, 0.9790)),
    (0.90, 31, 32, (0.9573, 0.9794, 0.9855)),
    (0.95, 32, 32, (0.9650, 0.9860, 0.9900)),
    (1.00, 32, 32, (0.9714, 0.9905, 0.9931)),
)
"""What the authors' LLaDA checkpoint (layer_2_flan.pth) computes, measured on the file."""


def published_differences(network: FilterNetwork) -> list[str]:
    """Probes at which a filter behaves otherwise than the authors' LLaDA checkpoint, one line
    each."""
    if network.facts.block_length != 32:
        return [f"block_length={network.facts.block_length}: the published filter has 32"]
    found = []
    for value, at_96, at_90, expected in PUBLISHED_PROBES:
        with torch.no_grad():
            p = network(torch.full((1, 32), value)).sigmoid()[0]
        counts = int((p > 0.96).sum()), int((p > 0.90).sum())
        probed = tuple(round(p[place].item(), 4) for place in (0, 1, 31))
        if counts != (at_96, at_90) or any(
            abs(ours - theirs) > 2e-4 for ours, theirs in zip(probed, expected, strict=True)
        ):
            found.append(
                f"confidence {value:.2f} everywhere: accepts {counts[0]} at 0.96 and {counts[1]} "
                f"at 0.90 (published {at_96} and {at_90}), probabilities {probed} (published "
                f"{expected})"
            )
    return found
