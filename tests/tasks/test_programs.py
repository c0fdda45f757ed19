"""HumanEval and MBPP: prompts, programs cut out of outputs, judged in the sandbox."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dllm.errors import ConfigError
from dllm.tasks.programs import HumanEval, Mbpp, pass_at


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's namespaces")

DATA = Path("../shared/data/humaneval/HumanEval.jsonl.gz")
LIMITS = {"seconds": 5, "memory_mb": 512}

HUMANEVAL_ROW = {
    "task_id": "HumanEval/0",
    "prompt": "import math\ndef half(x):\n    return x / 2\n\ndef f(x):\n    ''' Next. '''\n",
    "entry_point": "f",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert half(candidate(1)) == math.sqrt(1)\n",
}  # fmt: skip
MBPP_ROWS = [
    {"task_id": n, "text": f"Add {n}.", "code": f"def add(x):\r\n  return x + {n}",
     "test_list": [f"assert add({i}) == {n + i}" for i in range(3)]}
    for n in (2, 3, 4, 11, 600)
]  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_pass_at_k_by_hand() -> None:
    assert pass_at(1, 8, 3) == pytest.approx(0.375)
    assert pass_at(4, 8, 3) == pytest.approx(0.9286, abs=1e-4)
    assert pass_at(1, 1, 1) == 1 and pass_at(5, 5, 0) == 0
    with pytest.raises(ValueError, match="outside"):
        pass_at(3, 2, 1)


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("    return x + 1\n", True),
        ("    return x + 1\n\ndef g(: broken", True),  # cut at the stop text
        ("    return x", False),
        ("    while True: pass", False),
        ("", False),
    ],
)
def test_humaneval(tmp_path: Path, body: str, right: bool) -> None:
    task = HumanEval(written(tmp_path, [HUMANEVAL_ROW]), instruct=False, seconds=2, memory_mb=512)
    (sample,) = task.samples("test")
    assert sample.prompt == HUMANEVAL_ROW["prompt"]
    grade = task.assess(sample, task.answer_in(body))
    assert grade.correct is right
    assert grade.unparsed is (body == "")
    assert grade.scores["timeout"] == ("while" in body)


def test_humaneval_instruct(tmp_path: Path) -> None:
    task = HumanEval(written(tmp_path, [HUMANEVAL_ROW]), instruct=True, **LIMITS)
    (sample,) = task.samples("test")
    assert sample.prefix.endswith(f"```python\n{HUMANEVAL_ROW['prompt']}\n")
    assert task.assess(sample, "    return x + 1\n```\nIt adds one.").correct


@pytest.mark.parametrize("instruct", [False, True])
def test_mbpp(tmp_path: Path, instruct: bool) -> None:
    task = Mbpp(written(tmp_path, MBPP_ROWS), instruct=instruct, shots=3, **LIMITS)
    (sample,) = task.samples("test")  # task 600 is of another split
    assert [sample.prompt.count(f"Add {n}.") for n in (2, 3, 4, 11)] == [1] * 4
    assert task.assess(sample, task.answer_in(sample.answer)).correct
    wrong = sample.answer.replace("+ 11", "+ 12")
    assert not task.assess(sample, task.answer_in(wrong)).correct
    assert task.assess(sample, "").unparsed


def test_mbpp_instruct_takes_the_block(tmp_path: Path) -> None:
    task = Mbpp(written(tmp_path, MBPP_ROWS), instruct=True, shots=0, **LIMITS)
    (sample,) = task.samples("test")
    code = "def add(x):\n  return x + 11\n"
    for text in (code, f"{code}```\nIt adds.", f"```\nHere:\n```python\n{code}```\nIt adds."):
        assert task.assess(sample, text).correct, text


def test_mbpp_setup_uses_the_program(tmp_path: Path) -> None:
    row = {
        **MBPP_ROWS[3],
        "test_setup_code": "one = Box(1)",
        "test_list": ["assert value(one) == 1"],
    }
    task = Mbpp(written(tmp_path, [row]), instruct=False, shots=0, **LIMITS)
    (sample,) = task.samples("test")
    code = "class Box:\n  def __init__(self, v): self.v = v\ndef value(box): return box.v"
    assert task.assess(sample, code).correct


def test_shots_must_be_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks the tasks \[2, 3\] of task\.shots=2"):
        Mbpp(written(tmp_path, MBPP_ROWS[1:]), instruct=False, shots=2, **LIMITS).samples("test")


def test_a_platform_without_a_jail_is_named_before_the_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    task = HumanEval(written(tmp_path, [HUMANEVAL_ROW]), instruct=False, **LIMITS)
    with pytest.raises(ConfigError, match="only Linux"):
        task.samples("test")


needs_data = pytest.mark.skipif(not DATA.is_file(), reason=f"{DATA} is not there")


def whole() -> tuple[HumanEval, list]:
    task = HumanEval(str(DATA), instruct=False, **LIMITS)
    return task, task.samples("test")


@needs_data
def test_reference_solutions_are_right() -> None:
    task, samples = whole()
    assert len(samples) == 164
    # 32, 38 and 50: tests that use what the prompt defines besides the function
    for index in (0, 32, 38, 50, 163):
        answer = samples[index].answer
        assert task.assess(samples[index], task.answer_in(answer)).correct, index


@needs_data
@pytest.mark.slow
def test_all_reference_solutions_are_right() -> None:
    task, samples = whole()
    wrong = [
        s.meta["index"] for s in samples if not task.assess(s, task.answer_in(s.answer)).correct
    ]
    assert wrong == []
