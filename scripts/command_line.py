"""Exit codes and one-line errors around a Hydra entry point.

Hydra prints several lines for a wrong option and exits with 1, as it does for a crash. Until the
job has started its words are held back and given as one line with exit code 2.
"""

import argparse
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from hydra.errors import HydraException

# The import registers what conf/*.yaml interpolates, too.
from dllm.config import at_home, check_choices, is_path, unknown_choice, without_plus
from dllm.errors import ConfigError, RunError
from dllm.printable import printable
from dllm.runs import stopping
from dllm.runs.ranks import Ranks


class Unheard(BaseException):
    """stdout takes no more. Not an `OSError`, so that no one takes it for a file's."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        closed = isinstance(error, BrokenPipeError)
        self.reason = None if closed else error.strerror
        """None: who read it has left, and need not be told."""


class _Stream:
    """stdout or stderr; what is refused goes nowhere from then on."""

    def __init__(self, target: TextIO | None, needed: bool) -> None:
        # None: closed by whoever started the command.
        self._target = target or open(os.devnull, "w")  # noqa: SIM115 - closed with the process
        self._needed = needed
        """Whether the command ends where nobody can read it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def write(self, text: str) -> int:
        with self._refusal():
            self._target.write(text)
        return len(text)

    def flush(self) -> None:
        with self._refusal():
            self._target.flush()

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._target.fileno())
            if self._needed:
                raise Unheard(error) from None


class CommandLine:
    def __init__(self) -> None:
        self._code = 0
        self._running = False
        self._held: _Held | None = None
        self._reported: set[str] = set()
        self._afterwards: list[Callable[[], None]] = []

    def started(self) -> None:
        """The configuration is complete: from here on stderr is the job's own."""
        if self._held is not None:
            self._held.release()
        self.speak()

    def between_jobs(self) -> None:
        """Until the next job starts what is said is Hydra's."""
        if self._held is not None:
            self._held.hold()

    @contextmanager
    def job(self) -> Iterator[None]:
        """The body of a job: what the user can mend is one line and exit code 2, what went wrong
        on the way one line and 1."""
        self.started()
        try:
            yield
        except (ConfigError, RunError, OSError) as error:
            self._tell(error)

    def plain(self, run: Callable[[], int | None]) -> int:
        """Exit code of a command without Hydra: the same lines and codes as of a job."""
        self._running = True
        self.speak()
        return self._ended(lambda: self._plain(run))

    def _plain(self, run: Callable[[], int | None]) -> int:
        try:
            return run() or 0
        except (ConfigError, RunError, OSError) as error:
            self._tell(error)
            return self._code

    def _tell(self, error: ConfigError | RunError | OSError) -> None:
        """What ends the command. That the system refuses a file is no fault of the code."""
        if isinstance(error, OSError):
            what = error.filename or "a file"
            error = RunError(f"{what} can't be used: {error.strerror or error}")
        self.failed(2 if isinstance(error, ConfigError) else 1, str(error))

    def speak(self) -> None:
        """Each warning is one line, said once."""
        # Python's own "once" forgets whenever a library touches the filters.
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: self._say(f"warning: {message}")

    def failed(self, code: int, message: str) -> None:
        """Prints one line (once) and remembers the exit code; in a worker of a launcher the line is
        left to the process that was started by the user, and what is wrong with the command to the
        first of several processes."""
        self._code = max(self._code, code)
        try:
            ranks = Ranks.of_environment()
        except ConfigError:  # the failure to be told: there are no others
            ranks = Ranks(0, 1)
        if self._running and (ranks.first or code == 1):
            self._say(
                f"error: {message}" if ranks.first else f"error: process {ranks.rank}: {message}"
            )

    def __reduce__(self) -> str:
        """A launcher's worker has a command line of its own."""
        return "COMMAND"

    @contextmanager
    def output(self) -> Iterator[None]:
        """What is printed within it is the outcome; that nobody can read it is a failure."""
        try:
            yield
            sys.stdout.flush()
        except Unheard as end:
            self._unheard(end)

    def _unheard(self, end: Unheard) -> None:
        self._code = max(self._code, 1)
        if end.reason is not None:
            self.failed(1, f"stdout can't be written: {end.reason}")

    def _say(self, line: str) -> None:
        if line not in self._reported:
            self._reported.add(line)
            print(printable(line), file=sys.stderr)

    def _ended(self, command: Callable[[], int]) -> int:
        """Exit code of a command that may be stopped by a signal, or lose the reader of its
        output. Another one in this process has its own code and words."""
        self._code, self._reported, self._afterwards = 0, set(), []
        logging.raiseExceptions = False  # a library that can't write its log would tell how
        before = sys.stdout, sys.stderr
        sys.stdout = cast(TextIO, _Stream(sys.stdout, needed=True))
        sys.stderr = cast(TextIO, _Stream(sys.stderr, needed=False))
        try:
            with stopping.listening():
                code = command()
                sys.stdout.flush()
            return code
        except stopping.Stopped as stop:
            self.failed(stop.code, str(stop))
            with suppress(Unheard):  # Python's own last flush would tell
                sys.stdout.flush()
            return stop.code
        except Unheard as end:
            self._unheard(end)
            return self._code
        finally:
            sys.stdout, sys.stderr = before

    def run(self, entry: Callable[[], None]) -> int:
        """Exit code of a Hydra main function, and of what it has left for afterwards."""
        self._running = True
        return self._ended(lambda: self._completed(entry))

    def afterwards(self, work: Callable[[], None]) -> None:
        """To be done when Hydra has ended, in whatever way: it tells nobody of a sweep that its
        sweeper gave up."""
        self._afterwards.append(work)

    def _completed(self, entry: Callable[[], None]) -> int:
        code = self._run(entry)
        for work in self._afterwards:
            work()
        return max(code, self._code)

    def _run(self, entry: Callable[[], None]) -> int:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            entry()
            return self._code
        self._held = _Held(sys.stderr)
        sys.argv[1:] = with_home(sys.argv[1:])
        try:
            _refuse_pickle(sys.argv[1:])
            check_choices(sys.argv[1:])
        except ConfigError as error:
            self.failed(2, str(error))
            return 2
        try:
            with redirect_stderr(self._held):
                entry()
        except HydraException as error:  # of --hydra-help, where Hydra itself does not look for it
            self.failed(2, one_line(str(error)))
            return 2
        except SystemExit as stop:
            said = self._held.getvalue()
            # A fault of a job keeps its traceback.
            if self._held.holding and stop.code in (1, 2) and "Error executing job" not in said:
                self.failed(self._code or 2, one_line(said))
                return self._code
            self._held.release()
            return max(self._code, stop.code if isinstance(stop.code, int) else 1)
        self._held.release()
        return self._code


COMMAND = CommandLine()
"""The process's own. It lives here because `python -m` and Hydra's callback import an entry point
twice, under two names."""


def _refuse_pickle(arguments: Sequence[str]) -> None:
    flag = "--experimental-rerun"
    if any(len(given) > 4 and flag.startswith(given.split("=")[0]) for given in arguments):
        raise ConfigError(f"{flag} would execute what a pickle says: give the run's options again")


class _Held(io.StringIO):
    """Keeps what is written while it holds, passes everything on when released."""

    def __init__(self, target: TextIO):
        super().__init__()
        self._target = target
        self.holding = True

    def hold(self) -> None:
        self.holding = True

    def release(self) -> None:
        if self.holding:
            self.holding = False
            self._target.write(self.getvalue())
            self.seek(0)
            self.truncate()

    def write(self, text: str, /) -> int:
        return super().write(text) if self.holding else self._target.write(text)

    def flush(self) -> None:
        self._target.flush()

    def isatty(self) -> bool:
        return self._target.isatty()

    def fileno(self) -> int:
        return self._target.fileno()


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Raises `ConfigError` naming the option where its file can't be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{option} {path} can't be written: {error.strerror}") from None


class Parser(argparse.ArgumentParser):
    """Of a command without Hydra: what is wrong with its arguments is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(2)


def user_path(text: str) -> Path:
    """A path option, `~` expanded: the shell leaves it as it is in `--flag=~/x`. An empty one would
    be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Path(text).expanduser()


def with_home(arguments: Sequence[str]) -> list[str]:
    """Arguments with the home folder for a leading `~` of a path that Hydra does not read (no
    quotes around it, in a sweep's list too) or would make or look for a folder of itself; another
    option's `~` is quoted, and so is a path with a character that Hydra has no place for."""
    from hydra.core.override_parser.types import Quote, QuotedString

    found = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        key, _, value = argument.partition("=")
        if _names_config_dir(key) and at_home(value):
            argument = f"{key}={user_path(value)}"
        elif _names_config_dir(before) and at_home(argument):
            argument = str(user_path(argument))
        path_option = is_path(key.lstrip("+").rpartition(".")[2])
        made = key.lstrip("+") in ("hydra.sweep.dir", "hydra.run.dir")
        # Between quotes or brackets a comma separates no values.
        listed = "," in value and not made and not set(value) & set("\"'[{(")
        path = value.strip("\"'")
        unread = value == path and not key.startswith("-") and ("," not in value or listed)
        paths = value.split(",") if listed else [path]
        quoted = [
            at_home(path) or (path_option and unread and not _reads(key, path)) for path in paths
        ]
        if (unread or made) and any(quoted):
            texts = [
                QuotedString(
                    text=str(user_path(path)) if path_option else path, quote=Quote.double
                ).with_quotes()
                if quote
                else path
                for path, quote in zip(paths, quoted, strict=True)
            ]
            argument = f"{key}={','.join(texts)}"
        found.append(argument)
    return found


def _reads(key: str, value: str) -> bool:
    """Whether Hydra understands an option's value; asked of those only that are not plain."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if re.fullmatch(r"[\w/.:+-]*", value, re.ASCII):
        return True
    try:
        OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException:
        return False
    return True


def _names_config_dir(flag: str) -> bool:
    """Hydra's flag takes its folder behind `=` or as the next argument; argparse its beginnings."""
    return flag == "-cd" or (len(flag) > 9 and "--config-dir".startswith(flag))


def with_prompt(arguments: Sequence[str]) -> list[str]:
    """Arguments in which `prompt=TEXT` has become the task of that one prompt, quoted so that Hydra
    takes the text as it is.

    Raises `ConfigError` beside another task, and for `${`, which a configuration reads as a
    reference.
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    texts = [a.removeprefix("prompt=") for a in arguments if a.startswith("prompt=")]
    if not texts:
        return list(arguments)
    if len(texts) > 1:
        raise ConfigError("prompt=... is given twice: several prompts are task=prompts")
    others = [a for a in arguments if not a.startswith("prompt=")]
    for other in others:
        if other.startswith(("task=", "task.")):
            raise ConfigError(f"prompt=... and {other}: the prompt is the task")
    if "${" in texts[-1]:
        raise ConfigError("prompt=... holds ${: write it to a file, task=prompts task.path=FILE")
    quoted = QuotedString(text=texts[-1], quote=Quote.double).with_quotes()
    return [*others, "task=prompts", f"task.prompt={quoted}"]


def one_line(text: str) -> str:
    """The gist of Hydra's message about a configuration that can't be composed."""
    if unknown := unknown_choice(text):
        return unknown
    if any(words in text for words in ("No trials are completed yet", "Record does not exist")):
        return "hydra/sweeper: no trial has a value"  # Optuna's words
    hints = ("Set the environment variable", "See https")
    skipped = (*hints, "full_key:", "object_type=", "reference_type=")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(skipped)]
    if any(line.startswith(("Traceback", "usage:")) for line in kept):
        return kept[-1]
    return without_plus(" ".join(kept)) or "the command could not be understood"
