"""JSONSchemaBench: schemas from a folder or file, JSON and schema judged apart."""

import json
from pathlib import Path

import pytest

from dllm import judging
from dllm.tasks.base import Grade
from dllm.tasks.extraction import JsonExtraction
from dllm.tasks.jsonschema_bench import JsonSchemaBench, follows


DATA = Path("../shared/data/jsonschemabench")
SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"a": 1}', Grade(correct=True, scores={"json": 1.0})),
        ('```json\n{"a": 1}\n```', Grade(correct=True, scores={"json": 1.0})),
        ('{"a": "1"}', Grade(correct=False, scores={"json": 1.0})),
        ("{'a': 1}", Grade(correct=False, unparsed=True, scores={"json": 0.0})),
    ],
)
def test_json_and_schema_are_judged_apart(tmp_path: Path, text: str, grade: Grade) -> None:
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    task = JsonSchemaBench(str(tmp_path), "Github_easy")
    (sample,) = task.samples("test")
    assert json.dumps(SCHEMA) in sample.prompt
    assert task.assess(sample, text) == grade


def test_formats_are_checked_and_nothing_is_fetched() -> None:
    assert follows("10.0.0.1", {"format": "ipv4"}) and not follows("10.0.0.256", {"format": "ipv4"})
    assert not follows("x", {"format": "uuid"})
    assert not follows({}, {"$ref": "https://example.org/schema.json"})
    assert not follows({}, {"type": "nothing"})
    for name in ("ipv4", "ipv6", "uuid", "date"):  # which speak of texts only
        assert follows(5, {"format": name}) and follows([None], {"items": {"format": name}})
    # A time has a zone in every draft but the third.
    assert follows("12:00:00Z", {"format": "time"})


def test_patterns_mean_what_they_mean_to_a_constraint_and_take_no_endless_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert follows("\u2003", {"pattern": r"^\s$"}) and not follows("\u0663", {"pattern": r"^\d$"})
    assert not follows("a\n", {"pattern": "^a$"})
    assert not follows("a", {"pattern": "("})
    assert follows("a" * 31, {"pattern": "^((a+)+b|a{31})$"})
    monkeypatch.setattr(judging, "LIMIT", 0.05)
    assert not follows("a" * 60 + "b", {"pattern": "(a|aa)+$"})


def test_answers_too_deep_to_be_read_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"items": {"$ref": "#"}}))
    task = JsonSchemaBench(str(tmp_path), "Github_easy")
    (sample,) = task.samples("test")
    assert task.assess(sample, "[" * 5000).unparsed
    assert not task.assess(sample, "[" * 900 + "]" * 900).correct
    extraction = JsonExtraction()
    (one,) = extraction.samples("test", limit=1)
    assert not extraction.assess(one, "[" * 5000).correct


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_the_local_sets() -> None:
    for folder in sorted(DATA.iterdir()):
        samples = JsonSchemaBench(str(folder), folder.name).samples("test")
        assert len(samples) == 60
        assert all("schema" in sample.meta for sample in samples)
