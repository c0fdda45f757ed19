"""A wrapper passes on every hook of the sampler interface, also those that come to it."""

from importlib.util import find_spec, module_from_spec
from inspect import isfunction, signature
from typing import Any

import pytest
from tiny_decoding import sampler

from dllm.errors import ConfigError
from dllm.step.sampler import Sampler
from samplers.parts.opening import OpeningToken
from samplers.parts.wrapping import Wrapper


def hooks() -> list[str]:
    return [name for name, hook in vars(Sampler).items() if isfunction(hook) and name[0] != "_"]


class Recording:
    """A base that says which hook was asked."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in Sampler.__annotations__:
            return f"own {name}"
        return lambda *arguments, **named: (name, arguments, named)


@pytest.mark.parametrize("name", sorted({*hooks()} - {"with_tokenizer", "with_region"}))
def test_every_hook_reaches_the_base(name: str) -> None:
    wrapper = Wrapper(base=Recording())  # type: ignore[arg-type]
    given = tuple(range(len(signature(getattr(Sampler, name)).parameters) - 1))
    assert getattr(wrapper, name)(*given) == (name, given, {})


class Refusing(Recording):
    """A base whose hooks refuse an option."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in Sampler.__annotations__:
            return super().__getattr__(name)

        def refuse(*arguments: Any) -> None:
            raise ConfigError(
                "sampler.steps=3 exceeds sampler.region.block_length=2: use sampler/region=fixed"
            )

        return refuse


@pytest.mark.parametrize("name", sorted(hooks()))
def test_what_the_base_refuses_is_spelled_as_it_is_typed(name: str) -> None:
    """Every option that is named, also through two wrappers."""
    once = Wrapper(base=Refusing())  # type: ignore[arg-type]
    given = tuple(range(len(signature(getattr(Sampler, name)).parameters) - 1))
    for base, wrapper in (("base", once), ("base.base", Wrapper(base=once))):
        with pytest.raises(ConfigError) as error:
            getattr(wrapper, name)(*given)
        assert str(error.value) == (
            f"sampler.{base}.steps=3 exceeds sampler.{base}.region.block_length=2: use "
            f"sampler/region@sampler.{base}.region=fixed"
        )


def test_what_the_interface_declares_is_the_base_s() -> None:
    wrapper = Wrapper(base=Recording())  # type: ignore[arg-type]
    for name in Sampler.__annotations__:
        assert getattr(wrapper, name) == f"own {name}"


def test_a_hook_that_is_added_to_the_interface_reaches_the_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def added(self: Sampler, first: int, second: int) -> int:
        raise AssertionError("the wrapper's own default was asked")

    monkeypatch.setattr(Sampler, "added", added, raising=False)
    found = find_spec("samplers.parts.wrapping")
    assert found is not None and found.loader is not None
    module = module_from_spec(found)  # a second one, beside the one that is in use
    found.loader.exec_module(module)
    assert module.Wrapper(base=Recording()).added(3, second=4) == ("added", (3,), {"second": 4})


def test_a_wrapper_of_a_wrapper() -> None:
    rule = sampler("sampler=threshold")
    twice = OpeningToken(base=OpeningToken(base=rule))
    assert twice.region is rule.region
    assert twice.max_steps(8) == rule.max_steps(8)
    other = sampler("sampler=bacd").region
    moved = twice.with_region(other)
    assert moved.region is other and isinstance(moved.base, OpeningToken)
    assert moved.base.base.region is other
