"""What distinguishes one model family from another, as data.

One transformer serves every family; a `ModelSpec` is all it knows about a checkpoint. Values are
read from the checkpoint's own config.json by the readers in `dllm.models.families`.
"""

from dataclasses import dataclass
from typing import Literal

from dllm.errors import ConfigError


AttentionKind = Literal["full", "block_causal", "causal", "causal_prefix"]
"""`causal_prefix`: what is decided is read causally, the block under denoising reads all of it and
itself; nothing reads the block."""
Noise = Literal["mask", "uniform"]
"""What stands where nothing is decided: a mask token, or any token of the vocabulary."""
NO_MASK = -1
"""`mask_id` of a checkpoint that has no mask token: an autoregressive one (a verifier), one with
uniform noise. On a canvas it says that a position is undecided and is no token."""


Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True)
class WindowSpec:
    """Layers of two kinds (Gemma): those that see a sliding window, with the shape that the
    `ModelSpec` gives, and those that see everything, with heads of their own."""

    window: int
    """Positions that a sliding layer sees, the own one included."""
    full_layers: frozenset[int]
    """Layers that see everything; their values are their keys before norm and rotation."""
    head_dim: int
    n_kv_heads: int
    rope_theta: float
    rope_dim: int
    """Dimensions that rotate, with frequencies spaced as if all of `head_dim` did."""


@dataclass(frozen=True)
class MoeSpec:
    """Mixture-of-experts feed-forward of the layers that are not dense."""

    n_experts: int
    top_k: int
    d_expert: int
    router: Literal["softmax", "sigmoid_group"]
    d_shared: int = 0
    """Width of the shared expert that every token passes; 0 = none."""
    dense_layers: frozenset[int] = frozenset()
    """Layers with a plain feed-forward of width `ModelSpec.d_ff`."""
    renormalise: bool = False
    """Divide the chosen weights by their sum."""
    n_groups: int = 1
    kept_groups: int = 1
    scale: float = 1.0
    expert_bias: bool = False
    """A bias that influences the choice of experts, never their weight."""
    accumulate_fp32: bool = False
    """Sum the experts' outputs in float32 and cast once (LLaDA2)."""
    activation: Activation = "silu"
    """Of the gate."""

    def __post_init__(self) -> None:
        if self.n_experts % self.n_groups or not 1 <= self.kept_groups <= self.n_groups:
            raise ConfigError(
                f"{self.n_experts} experts can't be split into {self.n_groups} groups of which "
                f"{self.kept_groups} are kept"
            )
        reachable = self.n_experts // self.n_groups * self.kept_groups
        if not 1 <= self.top_k <= reachable:
            raise ConfigError(f"{self.top_k} experts per token of {reachable} that can be chosen")


@dataclass(frozen=True)
class ModelSpec:
    """Architecture, attention semantics and special tokens of one checkpoint."""

    family: str
    vocab_size: int
    """Rows of the embedding and of the LM head (may exceed the tokenizer's length)."""
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    mask_id: int
    eos_ids: tuple[int, ...]
    """Every id that ends an answer; the first one fills the canvas after the end."""
    pad_id: int
    bos_id: int | None = None
    rope_dim: int | None = None
    """Leading dimensions of each head that rotate; None = all of them."""
    rope_fp32: bool = False
    """Rotate queries and keys in float32 (LLaDA) instead of the model dtype."""
    norm_weight_fp32: bool = False
    """Multiply by the norm weight before the cast to the model dtype (SDAR's Triton kernel)."""
    qkv_bias: bool = False
    qk_norm: bool = False
    tied_embeddings: bool = False
    attention: AttentionKind = "full"
    block_size: int | None = None
    """Block of `block_causal` attention, counted from absolute position 0, or of `causal_prefix`,
    counted from the end of the prompt."""
    logit_shift: Literal[0, 1] = 0
    """1: the row of position i-1 predicts position i (models adapted from autoregressive ones)."""
    logits_fp32: bool = False
    trained_positions: int | None = None
    """Positions of the diffusion training where `max_positions` promises more (Dream: 2,048)."""
    moe: MoeSpec | None = None
    noise: Noise = "mask"
    windows: WindowSpec | None = None
    """Layers of two kinds; None = all are alike."""
    logit_cap: float | None = None
    """Bound c of the logits: c tanh(x / c)."""
    image_ids: tuple[int, ...] = ()
    """Tokens that stand for images, which are not read."""

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}"
            )
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise ConfigError(
                f"{self.rotary_dim} rotary dimensions: not an even number up to {self.head_dim}"
            )
        if self.attention in ("block_causal", "causal_prefix") and not self.block_size:
            kind = self.attention.replace("_", "-")
            raise ConfigError(f"{kind} attention needs a block_size >= 1")
        if self.noise == "uniform" and self.mask_id != NO_MASK:
            raise ConfigError(
                f"model.mask_id={self.mask_id}: the {self.family} model's canvas is made of random "
                "tokens, it has no mask token"
            )
        ends = (("model.eos_ids", token) for token in self.eos_ids)
        for name, token in [("model.mask_id", self.mask_id), ("pad_id", self.pad_id), *ends]:
            absent = name == "model.mask_id" and token == NO_MASK
            if not absent and not 0 <= token < self.vocab_size:
                raise ConfigError(
                    f"{name}={token} is outside the vocabulary [0, {self.vocab_size})"
                )
        if self.mask_id in self.eos_ids:
            raise ConfigError(f"model.mask_id={self.mask_id} is an end token, too (eos_ids)")

    @property
    def autoregressive(self) -> bool:
        """Whether it predicts the next token of a text, so that no mask was ever fed to it."""
        return self.attention == "causal" and self.logit_shift == 1

    @property
    def rotary_dim(self) -> int:
        return self.rope_dim or self.head_dim

    def kv_shape(self, layer: int) -> tuple[int, int]:
        """Key/value heads and width of a head."""
        two = self.windows
        if two is not None and layer in two.full_layers:
            return two.n_kv_heads, two.head_dim
        return self.n_kv_heads, self.head_dim

    def is_moe(self, layer: int) -> bool:
        return self.moe is not None and layer not in self.moe.dense_layers
