"""The tests' process: calls the program through its pipe and judges the plain values it returns."""

import ast
import builtins
import importlib
import sys
from typing import Any, NoReturn

import wire  # pyright: ignore[reportMissingImports]


class Program:
    """The other end of the pipes."""

    def __init__(self, calls: int, replies: int) -> None:
        self._calls, self._replies = calls, replies

    def ask(self, action: str, *arguments: Any) -> Any:
        """The program's answer, or its exception."""
        given = [wire.encode(argument, _held_number) for argument in arguments]
        wire.send(self._calls, [action, *given])
        return self.answer()

    def answer(self) -> Any:
        kind, *rest = wire.receive(self._replies)
        if kind == "error":
            raise wire.error_of(*rest)
        return wire.decode(rest[0], lambda data: Held(self, int(data[1])))


class Held:
    """A thing that stays in the program: it can be called, read and handed back, not compared, so
    that no method of the program decides a test."""

    __slots__ = ("_number", "_program")

    def __init__(self, program: Program, number: int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._program.ask("call", self, list(positional), named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._program.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("set", self, name, value)

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError("the program returned no plain value")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = _refuse
    __hash__ = None  # type: ignore[assignment]


def _held_number(value: Any) -> list:
    if isinstance(value, Held):
        return ["held", value._number]
    raise TypeError(f"the tests pass a {type(value).__name__}, which can't be sent")


def judge(
    calls: int, replies: int, verdicts: int, support: str, names: list[str] | None, tests: str
) -> None:
    """Runs the tests in a namespace of their own and sends `["passed"]` or `["failed", why]`.

    support: trusted code before the tests
    names: what the tests take from the program; None: all it defines, but built-in names and those
        of `support`

    A module of the standard library is always the true one: where the program defines the name as a
    module, or as something whose attributes the tests read.
    """
    try:
        program = Program(calls, replies)
        defined = {name: is_module for name, is_module in program.answer()}
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(support, "support.py", "exec"), space)
        wanted = names
        if wanted is None:
            wanted = [n for n in defined if not hasattr(builtins, n) and n not in space]
        read = {
            node.value.id
            for node in ast.walk(ast.parse(tests))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        for name in wanted:
            is_module = defined.get(name, False)
            if name in sys.stdlib_module_names and (is_module or name in read):
                space[name] = importlib.import_module(name)
            elif not is_module:
                space[name] = program.ask("name", name)
        exec(compile(tests, "tests.py", "exec"), space)
    except BaseException as error:
        wire.send(verdicts, ["failed", f"{type(error).__name__}: {error}"[:2000]])
    else:
        wire.send(verdicts, ["passed"])
