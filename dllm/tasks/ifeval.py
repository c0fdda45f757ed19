"""IFEval (arXiv 2311.07911): instructions whose following a program can check.

The checker is the lm-evaluation-harness's copy of the authors' (an optional package, with
langdetect, immutabledict and nltk). `strict` looks at the text as it is; `loose` also at the text
without its first or last line or its asterisks.
"""

from importlib.util import find_spec

from dllm.errors import ConfigError
from dllm.tasks.base import Grade, Sample, Split
from dllm.tasks.public import PublicTask
from dllm.tasks.rows import Row, Source


PACKAGES = {"lm_eval": "lm-eval", "langdetect": "langdetect", "immutabledict": "immutabledict"}
SENTENCES = "tokenizers/punkt_tab"
"""nltk's data for splitting sentences, which no package brings."""


class IFEval(PublicTask):
    """Correct = every instruction of the prompt followed, strictly."""

    kinds = ("ifeval",)
    source = Source(hub="google/IFEval", fields=("key", "prompt", "instruction_id_list", "kwargs"))

    def question(self, row: Row) -> str:
        return row["prompt"]

    def reference(self, row: Row) -> str:
        return ""  # the benchmark has none

    def rows(self, split: Split, beside: bool = False) -> list[Row]:
        # its one split is named train
        return self.source.read(self.path, split if self.path is not None else "train")

    def samples(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Sample]:
        lacking = [name for module, name in (*PACKAGES.items(), ("nltk", "nltk"))
                   if find_spec(module) is None]  # fmt: skip
        if lacking:
            raise ConfigError(
                f"task=ifeval needs the packages {', '.join(lacking)}: "
                'pip install "dllm-decode[ifeval]"'
            )
        import nltk

        try:
            nltk.data.find(SENTENCES)
        except LookupError:
            raise ConfigError(
                f"task=ifeval needs nltk's {SENTENCES}: python -m nltk.downloader punkt_tab"
            ) from None
        return super().samples(split, limit, seed)

    def assess(self, sample: Sample, text: str) -> Grade:
        import langdetect
        from lm_eval.tasks.ifeval.utils import process_results

        langdetect.DetectorFactory.seed = 0  # it guesses at random otherwise
        found = process_results(sample.meta["row"], [text])
        followed = found["inst_level_strict_acc"]
        return Grade(
            correct=found["prompt_level_strict_acc"],
            unparsed=not text.strip(),
            scores={
                "loose": float(found["prompt_level_loose_acc"]),
                "instructions": sum(followed) / len(followed),
            },
        )
