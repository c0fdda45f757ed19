"""JSONSchemaBench: schemas from a folder or file, JSON and schema judged apart."""

import json
from pathlib import Path

import pytest

from dllm.tasks.base import Grade
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


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
def test_the_local_sets() -> None:
    for folder in sorted(DATA.iterdir()):
        samples = JsonSchemaBench(str(folder), folder.name).samples("test")
        assert len(samples) == 60
        assert all("schema" in sample.meta for sample in samples)
