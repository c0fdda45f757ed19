"""JSONSchemaBench (arXiv 2501.10868): write an object that a schema from the wild accepts.

Outputs are judged in two steps, as in the lm-evaluation-harness: is it JSON, and does it follow the
schema (draft 2020-12, formats checked). The judge is that of constrained answers: patterns mean the
same, and take no endless time. Published files name the schema `json_schema`; a folder of .json
files, one schema each, is read as well.
"""

import json
from pathlib import Path
from typing import Any

from dllm import judging
from dllm.clock import Deadline, Undecided
from dllm.tasks.base import Grade, Sample, Split
from dllm.tasks.public import PublicTask
from dllm.tasks.rows import Row, Source


class JsonSchemaBench(PublicTask):
    """One set of schemas (`subset` on the hub, a folder or file here)."""

    kinds = ("jsonschema",)

    def __init__(self, path: str | None, subset: str) -> None:
        super().__init__(path)
        self.source = Source(
            hub="epfl-dlab/JSONSchemaBench", name=subset, fields=("json_schema", "unique_id")
        )

    def rows(self, split: Split, beside: bool = False) -> list[Row]:
        folder = None if self.path is None else Path(self.path).expanduser()
        if folder is None or not folder.is_dir() or not any(folder.glob("*.json")):
            return super().rows(split, beside)
        return [
            {"json_schema": file.read_text(), "unique_id": file.stem}
            for file in sorted(folder.glob("*.json"))
        ]

    def question(self, row: Row) -> str:
        return (
            "Generate a JSON object that matches the following JSON schema.\n\n"
            f"JSON schema: {row['json_schema']}\n\nJSON object: "
        )

    def reference(self, row: Row) -> str:
        return ""  # the benchmark has none: many objects follow a schema

    def sample(self, number: int, row: Row) -> Sample:
        return super().sample(number, row).with_meta(schema=json.loads(row["json_schema"]))

    def assess(self, sample: Sample, text: str) -> Grade:
        try:
            given = judging.read_json(text.strip().strip("`").strip("json"))
        except ValueError:
            return Grade(correct=False, unparsed=True, scores={"json": 0.0})
        return Grade(correct=follows(given, sample.meta["schema"]), scores={"json": 1.0})


def follows(value: Any, schema: Any) -> bool:
    """Whether a schema accepts a value; one that is invalid, refers to a schema that is not part of
    it (none is fetched), or can't be judged in time, accepts nothing."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing.exceptions import Unresolvable

    deadline = Deadline.after(judging.LIMIT)
    try:
        Draft202012Validator.check_schema(schema)
        judge = judging.validator(schema, Draft202012Validator, judging.FORMATS, deadline)
        return judge.is_valid(value)
    except (SchemaError, Unresolvable, Undecided, RecursionError):
        return False
