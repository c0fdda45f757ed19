"""Reads the values of a checkpoint's config.json strictly, with one-line errors that name the key.

Every family reader goes through this, so that a quantised checkpoint, a scaled rotary embedding or
a mask id outside the vocabulary is refused the same way everywhere.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec


@dataclass(frozen=True)
class Overrides:
    """Values the caller fixes through `model.*`; None = as the checkpoint says."""

    mask_id: int | None = None
    block_size: int | None = None
    """Block of block-causal attention (SDAR ships variants of 4 to 64, TDAR decodes with 16)."""
    eos_ids: tuple[int, ...] | None = None
    pad_id: int | None = None
    norm_weight_fp32: bool | None = None
    """Multiply by the norm weight in float32 (SDAR's own kernel) instead of after the cast."""
    rope_fp32: bool | None = None
    """Rotate in float32 (WeDLM's engine) instead of the model dtype."""
    logit_shift: int | None = None
    """1 = read a causal model's next-token predictions (WeDLM is trained on them, too)."""

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """The switches of the forward; ids and block size are used while reading.

        Raises `ConfigError` for a shift that the model can't have.
        """
        if self.logit_shift is not None and (
            self.logit_shift not in (0, 1) or spec.attention != "causal"
        ):
            raise ConfigError(
                f"model.logit_shift={self.logit_shift} is for causal models, 0 or 1; the model's "
                f"attention is {spec.attention}"
            )
        names = ("norm_weight_fp32", "rope_fp32", "logit_shift")
        given = {name: getattr(self, name) for name in names}
        return replace(spec, **{key: value for key, value in given.items() if value is not None})


class CheckpointConfig:
    """config.json of one checkpoint together with what else decides how it is read."""

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        source: str = "config.json",
        overrides: Overrides | None = None,
        tensors: Collection[str] | None = None,
    ):
        """`source` names the file in errors; `tensors` are the names stored in the checkpoint, None
        where there are no weights."""
        self.values = values
        self.source = source
        self.overrides = overrides or Overrides()
        self.tensors = tensors
        self._refuse_quantised()
        self._refuse_endless()

    @classmethod
    def of(cls, values: Mapping[str, Any] | Self) -> "CheckpointConfig":
        return values if isinstance(values, CheckpointConfig) else cls(values)

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            raise ConfigError(f"{self.source} lacks the key {key!r}")
        return self.values[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` where the key is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number >= 1."""
        value = self[key] if default is None else self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{self.source}: {key}={value!r} is not a whole number >= 1")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.source}: {key}={value!r} is not true or false")
        return value

    def number(self, key: str) -> float:
        """A finite number > 0."""
        return _positive(self[key], f"{self.source}: {key}")

    def head_dim(self, width: int, heads: int) -> int:
        """The file's, else the width shared out among the heads."""
        if self.get("head_dim") is not None:
            return self.count("head_dim")
        if width % heads:
            raise ConfigError(f"{self.source}: {heads} heads do not divide the width {width}")
        return width // heads

    def expect(self, family: str, switches: Mapping[str, Any]) -> None:
        """Refuses a checkpoint whose architecture switches, where given, differ from the
        family's."""
        for key, value in switches.items():
            found = self.values.get(key, value)
            if found != value:
                raise ConfigError(f"{self.source}: {key}={found!r}, {family} needs {value!r}")

    def rope_theta(self) -> float:
        """Base of the rotary frequencies; any scaling of them is refused."""
        nested = self.get("rope_parameters", {})
        for key, scaling in (
            ("rope_scaling", self.get("rope_scaling", {})),
            ("rope_parameters", nested),
        ):
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            if kind != "default":
                raise ConfigError(
                    f"{self.source}: {key} of type {kind!r} is not supported, only 'default'"
                )
        if "rope_theta" in nested:
            return _positive(nested["rope_theta"], f"{self.source}: rope_parameters.rope_theta")
        return self.number("rope_theta")

    def mask_id(self, default: int, vocab_size: int) -> int:
        """The override, the file's, or the family's default where it fits the vocabulary."""
        if self.overrides.mask_id is not None:
            return _id(self.overrides.mask_id, "model.mask_id")
        given = self.get("mask_token_id")
        if given is None and default >= vocab_size:
            raise ConfigError(
                f"{self.source} lacks mask_token_id and the family's {default} is outside the "
                f"vocabulary [0, {vocab_size}): set model.mask_id"
            )
        return default if given is None else _id(given, f"{self.source}: mask_token_id")

    def block_size(self, key: str, default: int) -> int:
        if self.overrides.block_size is not None:
            if self.overrides.block_size < 1:
                raise ConfigError(f"model.block_size={self.overrides.block_size} is not >= 1")
            return self.overrides.block_size
        return self.count(key, default)

    def eos_ids(self, vocab_size: int, stops: tuple[int, ...] = ()) -> tuple[int, ...]:
        """End ids: the file's first, then the family's other stop ids that the vocabulary holds.

        A file without eos_token_id (LLaDA2) ends with its pad token.
        """
        if self.overrides.eos_ids is not None:
            return tuple(end_ids([*self.overrides.eos_ids], "model", "eos_ids"))
        listed = end_ids(self.get("eos_token_id"), self.source)
        listed = listed or [_id(self["pad_token_id"], f"{self.source}: pad_token_id")]
        known = [token for token in stops if token < vocab_size]
        return tuple(dict.fromkeys([*listed, *known]))

    def pad_id(self, eos_ids: tuple[int, ...]) -> int:
        if self.overrides.pad_id is not None:
            return self.overrides.pad_id
        return _id(self.get("pad_token_id", eos_ids[0]), f"{self.source}: pad_token_id")

    def has_tensor(self, name: str) -> bool | None:
        """Whether the checkpoint stores a tensor; None where there are no weights to look at."""
        return None if self.tensors is None else name in self.tensors

    def _refuse_quantised(self) -> None:
        quantised = self.get("quantization_config")
        if quantised is not None:
            named = isinstance(quantised, dict)
            method = quantised.get("quant_method", "unknown method") if named else quantised
            raise ConfigError(
                f"{self.source}: quantised weights ({method}) are not supported, "
                "use the bfloat16 checkpoint"
            )

    def _refuse_endless(self) -> None:
        """More layers than tensors, of which each has several: building them would take long."""
        for key in ("n_layers", "num_hidden_layers"):
            layers = self.get(key)
            if self.tensors is not None and isinstance(layers, int) and layers > len(self.tensors):
                raise ConfigError(
                    f"{self.source}: {key}={layers}, the checkpoint stores {len(self.tensors)} "
                    "tensors"
                )


def end_ids(value: Any, source: str, key: str = "eos_token_id") -> list[int]:
    """End ids given as one number or a list of them; none where there is no value.

    Raises `ConfigError` for an empty list and for anything that is no id.
    """
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise ConfigError(f"{source}: {key}=[] names no end token")
    return [_id(token, f"{source}: {key}") for token in listed]


def _id(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{what}={value!r} is not a token id, a whole number >= 0")
    return value


def _positive(value: Any, what: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else 0.0
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not 0 < number < math.inf:
        raise ConfigError(f"{what}={value!r} is not a finite number > 0")
    return number
