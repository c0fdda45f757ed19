"""The user's own prompts: one text, or a file of them, graded where there is an answer."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split, Task, content_id
from dllm.tasks.rows import Row, read_lines


FIELDS = ("prompt", "messages", "answer", "grade", "id")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def _exact(answer: str, text: str) -> bool:
    return text.strip() == answer.strip()


def _contains(answer: str, text: str) -> bool:
    return answer.strip() in text


def _number(answer: str, text: str) -> bool:
    """The last number of the text is the answer's; thousands may be separated by commas."""
    found = _numbers(text)
    return bool(found) and found[-1] == _numbers(answer)[-1]


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


GRADES: Mapping[str, Callable[[str, str], bool]] = {
    "exact": _exact,
    "contains": _contains,
    "number": _number,
}


class Prompts(Task):
    """Lines `{"prompt" or "messages", "answer"?, "grade"?: exact | contains | number, "id"?}`.

    messages: {"role", "content"} with an optional system message first, user and assistant in turn,
        ending with the user
    """

    kinds = ("prompts",)

    def __init__(self, path: str | None, prompt: str | None) -> None:
        """`path` names a file of lines, `prompt` is the one text; exactly one of them is given."""
        if (path is None) == (prompt is None):
            given = "neither is" if path is None else "both are"
            raise ConfigError(f"task.path and task.prompt: {given} given, task=prompts needs one")
        self.path, self.prompt = path, prompt

    @classmethod
    def of(cls, prompts: Sequence[str | Sequence[Mapping[str, str]]]) -> list[Sample]:
        """Samples of texts and chats that are in memory already, as a file of them gives them."""
        rows = [{"prompt" if isinstance(p, str) else "messages": p} for p in prompts]
        seen: Counter[_Chat] = Counter()
        return [_sample(row, seen, f"prompts[{number}]") for number, row in enumerate(rows)]

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        """In the order of the file, whatever the split and the seed."""
        if self.path is None:
            assert self.prompt is not None
            return self.of([self.prompt])
        path = Path(self.path).expanduser()
        rows = read_lines(path, "task.path")
        if not rows:
            raise ConfigError(f"task.path={path} holds no prompt")
        seen: Counter[_Chat] = Counter()
        found = [
            _sample(row, seen, f"task.path={path}: entry {number + 1}")
            for number, row in enumerate(rows)
        ]
        if len({sample.id for sample in found}) < len(found):
            raise ConfigError(f"task.path={path}: two entries have the same id")
        return found[:limit]

    def assess(self, sample: Sample, text: str) -> Grade:
        grade = sample.meta.get("grade")
        return Grade(correct=None if grade is None else GRADES[grade](sample.answer, text))


def _sample(row: Row, seen: "Counter[_Chat]", where: str) -> Sample:
    """`seen` counts the chats so far: the same one again is another sample.

    Raises `ConfigError` beginning with `where` for fields that are missing, unknown or of the
    wrong kind."""
    for name in row:
        if name not in FIELDS:
            raise ConfigError(f"{where}: unknown field {name}, known are {', '.join(FIELDS)}")
    if ("prompt" in row) == ("messages" in row):
        raise ConfigError(f"{where} must have one of the fields prompt and messages")
    asked = [{"role": "user", "content": row["prompt"]}] if "prompt" in row else row["messages"]
    chat = _Chat.of(asked, where)
    meta: dict[str, Any] = {}
    if row.get("answer") is not None:
        answer, grade = row["answer"], row.get("grade", "exact")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise ConfigError(f"{where}: answer={answer!r} is no text and no number")
        answer = str(answer)
        if grade not in GRADES:
            raise ConfigError(f"{where}: grade={grade!r} is not one of {', '.join(GRADES)}")
        if grade == "number" and not _numbers(answer):
            raise ConfigError(f"{where}: answer={answer!r} holds no number")
        meta = {"grade": grade}
    elif row.get("grade") is not None:
        raise ConfigError(f"{where}: grade={row['grade']!r} needs an answer")
    name = row.get("id")
    if name is None:
        name = content_id("prompts", f"{seen[chat]}\n{chat}")
        seen[chat] += 1
    return Sample(
        str(name),
        "prompts",
        chat.prompt,
        str(row.get("answer") or ""),
        meta,
        chat.turns,
        chat.system,
    )


@dataclass(frozen=True)
class _Chat:
    """A chat that ends with the user's prompt."""

    system: str
    turns: tuple[tuple[str, str], ...]
    prompt: str

    @classmethod
    def of(cls, messages: Any, where: str) -> Self:
        if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
            raise ConfigError(f"{where}: messages must be a list of role and content")
        for message in messages:
            good = isinstance(message, Mapping) and set(message) == {"role", "content"}
            if not good or not isinstance(message["content"], str):
                raise ConfigError(f"{where}: {message!r} is no message with role and content")
            _check_text(message["content"], where)
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        rest = messages[1:] if messages[0]["role"] == "system" else messages
        roles = [message["role"] for message in rest]
        if len(rest) % 2 == 0 or roles != [("user", "assistant")[i % 2] for i in range(len(rest))]:
            raise ConfigError(
                f"{where}: after an optional system message user and assistant take turns, the "
                f"user last; got {', '.join(message['role'] for message in messages)}"
            )
        said = [message["content"] for message in rest]
        return cls(system, tuple(zip(said[0:-1:2], said[1::2], strict=True)), said[-1])


def _check_text(text: str, where: str) -> None:
    """A lone surrogate is no text: it can't be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: the text holds a lone surrogate") from None
