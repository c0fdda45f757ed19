"""MATH-500 (the 500 problems of arXiv 2305.20050 out of MATH, arXiv 2103.03874).

Answers are compared by math-verify, an optional package: no string comparison tells that 1/2 and
\\frac{1}{2} are the same.
"""

from importlib.util import find_spec

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split
from dllm.tasks.public import PublicTask
from dllm.tasks.rows import Row, Source


class Math500(PublicTask):
    """The question, then the request to put the answer in a box."""

    kinds = ("math500",)
    source = Source(hub="HuggingFaceH4/MATH-500", fields=("problem", "solution", "answer"))

    def question(self, row: Row) -> str:
        return f"{row['problem']}\nPlease reason step by step, and put the answer in \\boxed{{}}."

    def reference(self, row: Row) -> str:
        return row["solution"]

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        if find_spec("math_verify") is None:
            raise ConfigError(
                "task=math500 needs the package math-verify: "
                "pip install 'math-verify[antlr4_9_3]>=0.8,<1'"
            )
        return super().samples(split, limit, seed)

    def assess(self, sample: Sample, text: str) -> Grade:
        from math_verify import parse, verify  # sympy, only needed here

        wanted = parse(f"${sample.meta['row']['answer']}$")
        given = parse(text)
        return Grade(correct=bool(given) and verify(wanted, given), unparsed=not given)
