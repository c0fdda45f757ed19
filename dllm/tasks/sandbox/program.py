"""The program's process: runs its text, then answers calls until the tests are done."""

import itertools
import types
from typing import Any

import wire  # pyright: ignore[reportMissingImports]


def serve(calls: int, replies: int, code: str) -> None:
    """The first reply names what the program defined: `[name, is a module]`."""
    held: dict[int, Any] = {}
    numbers = itertools.count()

    def hold(value: Any) -> list:
        held[number := next(numbers)] = value
        return ["held", number]

    def reply(make: Any) -> None:
        try:
            wire.send(replies, ["value", wire.encode(make(), hold)])
        except Exception as error:
            wire.send(replies, ["error", type(error).__name__, str(error)[:2000]])

    space: dict[str, Any] = {"__name__": "program"}

    def load() -> list:
        exec(compile(code, "program.py", "exec"), space)
        names = [name for name in space if not name.startswith("__")]
        return [[name, isinstance(space[name], types.ModuleType)] for name in names]

    reply(load)
    while True:
        action, *arguments = wire.receive(calls)
        arguments = wire.decode(["list", arguments], lambda data: held[data[1]])
        if action == "name":
            reply(lambda names=arguments: space[names[0]])
        elif action == "call":
            target, positional, named = arguments
            reply(lambda t=target, p=positional, n=named: t(*p, **n))
        elif action == "get":
            reply(lambda a=arguments: getattr(a[0], a[1]))
        elif action == "set":
            reply(lambda a=arguments: setattr(*a))
