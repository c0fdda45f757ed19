"""Scores of free text: grammar by LanguageTool, and the words that a sentence must include.

Version 1 of the benchmark multiplies grammar with inclusion (words_to_sentence), ROUGE-L (samsum)
or BERTScore and 1 - BLEU (paraphrase); the paper's curves show grammar alone, and so do the last
two here.
"""

from collections.abc import Mapping, Set
from importlib.util import find_spec
from shutil import which
from typing import Any

from dllm.errors import ConfigError
from dllm.tasks.base import Grade


GRAMMAR_SCORES: Mapping[str, str] = {
    "sentence_to_words_score": "words_to_sentence",
    "summary_score": "samsum",
    "paraphrase_score": "chatgpt-paraphrases",
}
"""Metrics that need grammar -> what the benchmark calls the texts."""


class Grammar:
    """Checks texts if one of `metrics` is asked for; what it lacks is said on construction."""

    def __init__(self, metrics: Set[str], wanted: bool) -> None:
        self._faulty: dict[str, bool] = {}
        self._tool: Any = None
        self._wanted = wanted
        if not metrics:
            return
        named = ", ".join(sorted(GRAMMAR_SCORES[metric] for metric in metrics))
        if not wanted:
            if metrics != {"sentence_to_words_score"}:
                raise ConfigError(f"task.grammar=false: {named} is graded by grammar alone")
            return
        lacking = [] if which("java") else ["Java"]
        if find_spec("language_tool_python") is None:
            lacking.append("the package language-tool-python")
        if lacking:
            raise ConfigError(
                f"task.grammar=true: {named} is graded by LanguageTool, which needs "
                f"{' and '.join(lacking)}; task.grammar=false grades words_to_sentence by the "
                "included words alone"
            )

    def assess(self, metric: str, text: str, label: Mapping[str, Any]) -> Grade:
        scores: dict[str, float] = {}
        if metric == "sentence_to_words_score":
            # a substring, upper and lower case told apart: "hotdog" includes "dog"
            scores["inclusion"] = float(all(word in text for word in label["words"]))
        else:
            text = text.strip()
        if self._wanted:
            scores["grammar"] = float(self._is_faultless(text))
        return Grade(correct=all(scores.values()), scores=scores)

    def _is_faultless(self, text: str) -> bool:
        if not text:
            return False
        if text not in self._faulty:
            if self._tool is None:
                import language_tool_python  # pyright: ignore[reportMissingImports]

                self._tool = language_tool_python.LanguageTool("en-US")
            self._faulty[text] = bool(self._tool.check(text))
        return not self._faulty[text]
