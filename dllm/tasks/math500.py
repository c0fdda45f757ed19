"""MATH-500 (the 500 problems of arXiv 2305.20050 out of MATH, arXiv 2103.03874).

`boxed` asks for the answer in a box, `minerva` is the lm-evaluation-harness's `minerva_math`
(`Problem: ... Solution:`, up to four worked examples, always the same). A local file may hold all
of MATH. Answers are compared by math-verify, an optional package: no string comparison tells that
1/2 and \\frac{1}{2} are the same.
"""

from importlib.util import find_spec
from typing import Literal

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split
from dllm.tasks.public import PublicTask, identified
from dllm.tasks.rows import Row, Source
from dllm.tasks.worked_examples import MINERVA


ASKED = {
    "boxed": "{}\nPlease reason step by step, and put the answer in \\boxed{{}}.",
    "minerva": "Problem:\n{}\n\nSolution:",
}


class Math500(PublicTask):
    """
    form: how the problem is asked
    shots: worked examples before it, of the form minerva
    prefix: how every answer begins; part of the prompt
    """

    kinds = ("math500",)
    source = Source(hub="HuggingFaceH4/MATH-500", fields=("problem", "solution"))

    def __init__(
        self, path: str | None, form: Literal["boxed", "minerva"], shots: int, prefix: str
    ) -> None:
        super().__init__(path)
        most = len(MINERVA) if form == "minerva" else 0
        if not 0 <= shots <= most:
            raise ValueError(f"shots={shots}: form={form} has {most} worked examples")
        self.form, self.shots, self.prefix = form, shots, prefix
        self.stop = ("Problem:",) if form == "minerva" else ()

    def question(self, row: Row) -> str:
        told = [f"{ASKED[self.form].format(p)} {s}\n\n" for p, s in MINERVA[: self.shots]]
        return "".join(told) + ASKED[self.form].format(row["problem"])

    def reference(self, row: Row) -> str:
        return row["solution"]

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        if find_spec("math_verify") is None:
            raise ConfigError(
                "task=math500 needs the package math-verify: "
                "pip install 'math-verify[antlr4_9_3]>=0.8,<1'"
            )
        return super().samples(split, limit, seed)

    def sample(self, number: int, row: Row) -> Sample:
        question, answer = self.question(row), self.reference(row)
        return identified(self.kinds[0], number, row, question, answer, prefix=self.prefix)

    def assess(self, sample: Sample, text: str) -> Grade:
        from math_verify import parse, verify  # sympy, only needed here

        row = sample.meta["row"]
        wanted = parse(f"${row['answer']}$" if "answer" in row else row["solution"])
        given = parse(text)
        return Grade(correct=bool(given) and verify(wanted, given), unparsed=not given)
