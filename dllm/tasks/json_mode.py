"""JSON of the constrained-decoding papers (arXiv 2508.10111): 272 requests, each with its schema.

The answer begins inside a fenced block, the reference is one JSON text. Functional as the authors
count it: the same text once both are printed with four blanks of indentation, so that the order of
the keys matters. Their syntax check has a grammar of its own (no escaped quotes); here `json` says
whether the text is JSON and `schema` whether it follows the schema.
"""

import json
from dataclasses import replace

from dllm import judging
from dllm.tasks.base import Grade, Sample
from dllm.tasks.jsonschema_bench import follows
from dllm.tasks.public import PublicTask
from dllm.tasks.rows import Row, Source


SYSTEM = (
    "You are a helpful assistant that answers in JSON. Here's the JSON schema you must adhere to:\n"
    "<schema>\n{}\n</schema>\n"
)
OPENING = "```json\n"


class JsonMode(PublicTask):
    """Correct = the reference's JSON, keys in its order."""

    kinds = ("json_mode",)
    source = Source(
        hub="eth-sri/json-mode-eval-extended", fields=("instance_id", "input", "output", "schema")
    )
    stop = ("```",)

    def question(self, row: Row) -> str:
        return row["input"]

    def reference(self, row: Row) -> str:
        return row["output"]

    def sample(self, number: int, row: Row) -> Sample:
        made = super().sample(number, row).with_meta(schema=json.loads(row["schema"]))
        return replace(made, system=SYSTEM.format(row["schema"]), prefix=OPENING)

    def assess(self, sample: Sample, text: str) -> Grade:
        try:
            given = judging.read_json(text)
        except ValueError:
            return Grade(correct=False, unparsed=True, scores={"json": 0.0, "schema": 0.0})
        wanted = json.loads(sample.meta["row"]["output"])
        return Grade(
            correct=json.dumps(given, indent=4) == json.dumps(wanted, indent=4),
            scores={"json": 1.0, "schema": float(follows(given, sample.meta["schema"]))},
        )
