"""Tasks that ask for a program: HumanEval and MBPP, pass@1 in the sandbox.

Prompts, stop texts and how the program is cut out of the output are those of the
lm-evaluation-harness (no other sanitiser), its base or its instruct form. One difference: of MBPP's
instruct form the harness (0.4.13) drops the first word where the output goes on with the block that
the prompt opened; here the program is kept whole.
"""

from __future__ import annotations

import re
from math import comb

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split
from dllm.tasks.public import PublicTask, identified
from dllm.tasks.rows import Row, Source
from dllm.tasks.sandbox.sandbox import Result, Sandbox


def pass_at(k: int, n: int, correct: int) -> float:
    """Probability that one of k programs is right, drawn from n of which `correct` are
    (arXiv 2107.03374, equation 1)."""
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is outside 1..{n}")
    return 1 - comb(n - correct, k) / comb(n, k)


class HumanEval(PublicTask):
    """HumanEval (arXiv 2107.03374): the body of a function whose head and docstring are given.

    instruct: asked for in words, and the answer begins with the function's head
    """

    kinds = ("humaneval",)
    source = Source(
        hub="openai/openai_humaneval",
        fields=("task_id", "prompt", "entry_point", "canonical_solution", "test"),
    )
    stop = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

    def __init__(self, path: str | None, instruct: bool, seconds: float, memory_mb: int) -> None:
        super().__init__(path)
        self.instruct = instruct
        self.sandbox = Sandbox(seconds=seconds, memory_mb=memory_mb)

    def question(self, row: Row) -> str:
        if not self.instruct:
            return row["prompt"]
        return (
            "Write a solution to the following problem and make sure that it passes the tests:\n"
            f"```python\n{row['prompt']}\n```\n"
        )

    def reference(self, row: Row) -> str:
        return row["canonical_solution"]

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        self.sandbox.check()
        return super().samples(split, limit, seed)

    def sample(self, number: int, row: Row) -> Sample:
        begun = f"Here is the completed function:\n```python\n{row['prompt']}\n"
        prefix = begun if self.instruct else ""
        question, answer = self.question(row), self.reference(row)
        return identified(self.kinds[0], number, row, question, answer, prefix=prefix)

    def assess(self, sample: Sample, text: str) -> Grade:
        row = sample.meta["row"]
        body = text.split("```")[0] if self.instruct else text
        name = row["entry_point"]
        judged = self.sandbox.judge(
            code=row["prompt"] + body,
            # some tests use what the prompt defines besides the function
            support=row["prompt"] + row["canonical_solution"],
            names=[name],
            tests=f"{row['test']}\ncheck({name})",
        )
        return _grade(judged.result, unparsed=not body.strip())


MBPP_TEST = range(11, 511)
MBPP_SHOTS = [2, 3, 4]
FENCED = re.compile(r"```(?:python|py)\n(.*?)```", re.DOTALL)


class Mbpp(PublicTask):
    """MBPP (arXiv 2108.07732): a function from a sentence and three of its tests.

    Tasks 11 to 510 are the test split, 2 to 4 the worked examples; a file may hold all 974.

    instruct: the answer is one fenced block of code, else it ends with `[DONE]`
    shots: worked examples before the question
    """

    kinds = ("mbpp",)
    source = Source(
        hub="google-research-datasets/mbpp",
        name="full",
        fields=("task_id", "text", "code", "test_list"),
    )

    def __init__(
        self, path: str | None, instruct: bool, shots: int, seconds: float, memory_mb: int
    ) -> None:
        super().__init__(path)
        if not 0 <= shots <= len(MBPP_SHOTS):
            raise ValueError(f"shots={shots} is outside 0..{len(MBPP_SHOTS)}")
        self.instruct, self.shots = instruct, shots
        self.sandbox = Sandbox(seconds=seconds, memory_mb=memory_mb)
        self.stop = () if instruct else ("[DONE]",)

    def question(self, row: Row) -> str:
        tests = "\n".join(row["test_list"][:3])
        if self.instruct:
            return (
                f"You are an expert Python programmer, and here is your task:\n{row['text']}\n"
                f"Your code should pass these tests:\n{tests}"
            )
        return (
            f"You are an expert Python programmer, and here is your task: {row['text']} "
            f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
        )

    def reference(self, row: Row) -> str:
        return f"{row['code']}\n```" if self.instruct else f"{row['code']}\n[DONE]"

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        self.sandbox.check()
        prefix = "\n```python\n" if self.instruct else ""
        told = [f"{self.question(r)}{prefix}{self.reference(r)}\n\n" for r in self._examples()]
        rows = [row for row in self.rows(split) if row["task_id"] in MBPP_TEST]
        samples = []
        for number, row in enumerate(rows[:limit]):
            question, answer = "".join(told) + self.question(row), self.reference(row)
            samples.append(identified("mbpp", number, row, question, answer, prefix=prefix))
        return samples

    def _examples(self) -> list[Row]:
        if not self.shots:
            return []
        rows = {row["task_id"]: row for row in self.source.read(self.path, "prompt")}
        wanted = MBPP_SHOTS[: self.shots]
        if not rows.keys() >= set(wanted):
            raise ConfigError(
                f"task.path={self.path} lacks the tasks {wanted} of task.shots={self.shots}; "
                "name a file of the whole benchmark or take task.shots=0"
            )
        return [rows[task_id] for task_id in wanted]

    def assess(self, sample: Sample, text: str) -> Grade:
        row = sample.meta["row"]
        code = _fenced(text) if self.instruct else text
        judged = self.sandbox.judge(
            code=code,
            support="\n".join(row.get("test_imports") or []),
            tests="\n".join([row.get("test_setup_code") or "", *row["test_list"]]),
        )
        return _grade(judged.result, unparsed=not code.strip())


def _fenced(text: str) -> str:
    """The rest of the block that the prompt opened; where that is empty, the first Python one."""
    begun = text.split("```")[0]
    if begun.strip():
        return begun
    found = FENCED.search(text)
    return found[1] if found else ""


def _grade(result: Result, unparsed: bool) -> Grade:
    return Grade(
        correct=result is Result.PASSED,
        unparsed=unparsed,
        scores={"timeout": float(result is Result.TIMEOUT)},
    )
