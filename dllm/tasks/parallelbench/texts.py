"""Scores of free text: grammar by LanguageTool, included words, likeness to a reference.

Version 1 of the benchmark multiplies grammar with inclusion (words_to_sentence), ROUGE-L (samsum)
or BERTScore and 1 - BLEU against the source (paraphrase): `score_v1`. The paper's curves show
grammar alone, and so does what counts as correct of the last two here. ROUGE stems, BLEU is that of
single texts without smoothing, as in the `evaluate` library that the benchmark calls.
"""

import sys
from collections.abc import Callable, Mapping, Set
from importlib.util import find_spec
from shutil import which
from typing import Any

from huggingface_hub import try_to_load_from_cache

from dllm.errors import ConfigError
from dllm.tasks.base import Grade


TEXT_SCORES: Mapping[str, str] = {
    "sentence_to_words_score": "words_to_sentence",
    "summary_score": "samsum",
    "paraphrase_score": "chatgpt-paraphrases",
}
"""Metrics of free text -> what the benchmark calls the texts."""
BERT = "roberta-large"


class Texts:
    """Judges texts if one of `metrics` is asked for; what it lacks is said on construction.

    grammar: by LanguageTool
    bertscore: of paraphrases
    """

    def __init__(self, metrics: Set[str], grammar: bool, bertscore: bool) -> None:
        asked = metrics & TEXT_SCORES.keys()
        self._faulty: dict[str, bool] = {}
        self._tool: Any = _language_tool(asked, grammar) if asked else None
        self._rouge = _rouge() if "summary_score" in asked else None
        self._bleu = _bleu() if "paraphrase_score" in asked else None
        self._bert = _bert() if bertscore and "paraphrase_score" in asked else None

    def assess(self, metric: str, text: str, label: Mapping[str, Any]) -> Grade:
        scores: dict[str, float] = {}
        if metric == "sentence_to_words_score":
            # a substring, upper and lower case told apart: "hotdog" includes "dog"
            scores["inclusion"] = float(all(word in text for word in label["words"]))
        else:
            text = text.strip()
        if self._tool is not None:
            scores["grammar"] = float(self._is_faultless(text))
        if metric == "sentence_to_words_score":
            return Grade(correct=all(scores.values()), scores=scores)
        if self._rouge is not None and metric == "summary_score":
            found = self._rouge.score(label["summary"].strip(), text)
            scores |= {name: value.fmeasure for name, value in found.items()}
            scores["score_v1"] = scores["rougeL"] * scores["grammar"]
        elif self._bleu is not None:
            # nothing said is no paraphrase, however little it repeats
            scores["inverse_bleu"] = 1 - self._bleu(text, label["text"]) if text else 0.0
            if self._bert is not None:
                scores["bertscore"] = self._bert(text, label["text"]) if text else 0.0
                scores["score_v1"] = (
                    scores["inverse_bleu"] * scores["bertscore"] * scores["grammar"]
                )
        return Grade(correct=bool(scores["grammar"]), scores=scores)

    def _is_faultless(self, text: str) -> bool:
        if not text:
            return False
        if text not in self._faulty:
            self._faulty[text] = bool(self._tool.check(text))
        return not self._faulty[text]


def _language_tool(asked: Set[str], wanted: bool) -> Any:
    """None if it is not wanted, which only words_to_sentence allows."""
    named = ", ".join(sorted(TEXT_SCORES[metric] for metric in asked))
    if not wanted:
        if asked != {"sentence_to_words_score"}:
            raise ConfigError(f"task.grammar=false: {named} is graded by grammar alone")
        return None
    lacking = [] if which("java") else ["Java"]
    if find_spec("language_tool_python") is None:
        lacking.append("the package language-tool-python")
    without = "task.grammar=false grades words_to_sentence by the included words alone"
    if lacking:
        raise ConfigError(
            f"task.grammar=true: {named} is graded by LanguageTool, which needs "
            f"{' and '.join(lacking)}; {without}"
        )
    import language_tool_python  # pyright: ignore[reportMissingImports]

    try:
        return language_tool_python.LanguageTool("en-US")  # fetches 250 MB the first time
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(
            f"task.grammar=true: LanguageTool can't be fetched or started ({why}); {without}"
        ) from None


def _needed(module: str, package: str, kind: str) -> None:
    if find_spec(module) is None:
        raise ConfigError(
            f"task=parallelbench: {kind} needs the package {package}: "
            'pip install "dllm-decode[texts]"'
        )


def _rouge() -> Any:
    _needed("rouge_score", "rouge-score", "samsum")
    from absl import logging
    from rouge_score.rouge_scorer import RougeScorer  # nltk, only needed here

    # It keeps the stderr of this moment and closes it when logging is configured anew.
    logging.get_absl_handler().python_handler.stream = sys.__stderr__
    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def _bleu() -> Callable[[str, str], float]:
    _needed("sacrebleu", "sacrebleu", "chatgpt-paraphrases")
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize="13a", smooth_method="none")
    return lambda text, source: metric.corpus_score([text], [[source]]).score / 100


def _bert() -> Callable[[str, str], float]:
    _needed("bert_score", "bert-score", "task.bertscore=true")
    if not isinstance(try_to_load_from_cache(BERT, "config.json"), str):
        raise ConfigError(
            f"task.bertscore=true needs the model {BERT} (1.4 GB): hf download {BERT}"
        )
    from bert_score import BERTScorer  # pyright: ignore[reportMissingImports]

    scorer = BERTScorer(lang="en")
    return lambda text, source: float(scorer.score([text], [source])[2][0])
