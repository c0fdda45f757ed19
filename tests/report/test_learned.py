"""The page of the learned methods from written-down summaries."""

from typing import Any

import pytest

from dllm.config import build, compose
from dllm.report.learned import BASELINE, CHAPTERS, ORACLE, Chapter, rows, section


def summary(nfe: float) -> dict[str, Any]:
    metrics = {
        "n": 4,
        "accuracy": 0.5,
        "accuracy_low": 0.15,
        "accuracy_high": 0.85,
        "nfe": nfe,
        "enfe": 2 * nfe,
        "tpf": 8 / nfe,
        "effective": 8.0,
        "tokens_per_second": 16.0,
    }
    return {"metrics": metrics}


def test_share_of_the_gap() -> None:
    table = rows({BASELINE: summary(32), ORACLE: summary(2), "half way": summary(17)})
    assert [row.closed for row in table.values()] == [0.0, 1.0, 0.5]
    chapter = Chapter("a model", [], {}, {}, {"half way": BASELINE})
    text = "\n".join(section(chapter, table, {"a mode": (4, 3, 0)}))
    assert "| half way | 4 | 0.500 [0.150, 0.850] | 17.00 | 34.00 | 0.47 | 0.500 | 50.0% |" in text
    assert f"- half way: 1.88 times fewer forwards than {BASELINE}; accuracy 0.500" in text
    assert "McNemar" not in text
    assert "| a mode | 4 | 3 | 0 |" in text


def test_paired_grades() -> None:
    same = [True, True, False, False]
    found = rows(
        {
            BASELINE: summary(32) | {"grades": same},
            ORACLE: summary(2),
            "worse": summary(17) | {"grades": [False] * 4},
        }
    )
    text = "\n".join(section(Chapter("a model", [], {}, {}, {"worse": BASELINE}), found, {}))
    assert "(McNemar p 0.5)." in text


LEGAL = [
    pytest.param(chapter, options, id=f"{chapter.model}: {name}")
    for chapter in CHAPTERS
    for name, options in chapter.cases.items()
    if "learn2pd" not in name
]


@pytest.mark.parametrize(("chapter", "options"), LEGAL)
def test_every_case_is_a_legal_command(chapter: Chapter, options: list[str]) -> None:
    config = compose(["task=embedded", *chapter.run, *options])
    build(config.sampler, "sampler").validate(config.gen_length)
