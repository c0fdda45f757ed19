"""What one model family adds to the shared transformer: how its files are read and written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dllm.models.config_reader import CheckpointConfig
from dllm.models.spec import ModelSpec
from dllm.models.weights import WeightMap


@dataclass(frozen=True)
class Family:
    """One public checkpoint format."""

    name: str
    """`ModelSpec.family` of its models."""
    architectures: tuple[str, ...]
    """Values of config.json `architectures[0]` (unlike `model_type`, unique to the family)."""
    model_types: tuple[str, ...]
    marks: tuple[str, ...]
    """Tensor names that every checkpoint of the family has; they tell families apart that share a
    model type."""
    read: Callable[[CheckpointConfig], ModelSpec]
    write: Callable[[ModelSpec], dict[str, Any]]
    """The config.json of a model."""
    weights: Callable[[ModelSpec], WeightMap]
    chat: str
    """Chat format used where the tokenizer folder holds no template (`dllm.models.chat`)."""
    unread: tuple[str, ...] = ()
    """Beginnings of the names of tensors that the text needs none of (a vision tower)."""
    mask_in_tokenizer: bool = True
    """Whether the tokenizer must know the mask id; WeDLM uses one that it may not."""
