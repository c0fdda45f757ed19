"""What a constrained run leaves behind: how valid, how often asked, how dear."""

import json
from collections.abc import Callable

from dllm.config import compose
from dllm.report.tables import CONSTRAINED, comparison
from dllm.runs.execute import execute


def test_the_table_and_the_summary_tell_what_the_constraint_did(
    options: Callable[..., list[str]],
) -> None:
    asked = ("task=json", "constraint=json_schema", "constraint.method=lave", "limit=2")
    folder, summary = execute(
        compose(options(*asked, "baseline=false", "gen_length=32")), "localleap"
    )
    metrics = summary["metrics"]
    assert metrics["scores"] == {"json": 1.0, "schema": 1.0}
    assert metrics["checks"] > metrics["lookaheads"] > 0
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert sample["lookaheads"] > 0
    table = comparison([summary])
    cells = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert cells["valid"] == "json 1.000 schema 1.000"
    assert f"({metrics['lookaheads']:.1f} lookaheads)" in str(cells["checks"])
    plain = {**summary, "metrics": {**metrics, "checks": 0.0}}
    assert not {str(column.header) for column in comparison([plain]).columns} & {*CONSTRAINED}
