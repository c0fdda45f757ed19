"""A sampler around another one: adds a stage, a stop or a check and leaves the rest to its base.

Every hook of the `Sampler` interface goes to `base`, whatever hooks there are; a subclass overrides
those in which it differs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import isfunction
from typing import Any, Self

from dllm.errors import ConfigError, inside
from dllm.models.tokenizers import Tokenizer
from dllm.step import scores
from dllm.step.sampler import LogitsTransform, Proposer, Region, Sampler


@contextmanager
def of_base() -> Iterator[None]:
    """Within it the refusals of the sampler inside name its options as they are typed."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(inside(str(error))) from None


@dataclass(frozen=True, kw_only=True)
class Wrapper(Sampler):
    """Region, proposer and precision are those of `base`."""

    base: Sampler
    region: Region = field(init=False)
    proposer: Proposer = field(init=False)
    conf_dtype: scores.ConfDtype = field(init=False)
    logits_transform: LogitsTransform | None = field(init=False)

    def __post_init__(self) -> None:
        # What the interface declares follows the sampler inside, class variables included.
        for name in Sampler.__annotations__:
            object.__setattr__(self, name, getattr(self.base, name))

    def with_region(self, region: Region) -> Self:
        with of_base():
            base = self.base.with_region(region)
        return replace(self, base=base)

    def with_tokenizer(self, tokenizer: Tokenizer) -> Self:
        with of_base():
            base = self.base.with_tokenizer(tokenizer)
        return replace(self, base=base)


def _delegate(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def call(self: Wrapper, *arguments: Any, **named: Any) -> Any:
        with of_base():
            return getattr(self.base, hook.__name__)(*arguments, **named)

    return call


for _name, _hook in vars(Sampler).items():
    if isfunction(_hook) and not _name.startswith("_") and _name not in vars(Wrapper):
        setattr(Wrapper, _name, _delegate(_hook))
