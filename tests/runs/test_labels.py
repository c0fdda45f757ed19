"""Labels tell what differs from the defaults, and runs that differ have different labels."""

import itertools

import pytest

from dllm.config import compose
from dllm.runs.labels import label, task_name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "threshold"),
        (["limit=3", "output=/elsewhere", "tracker=none", "trace=false", "task=json"], "threshold"),
        (["seed=1"], "threshold (seed=1)"),
        (["gen_length=64", "eos=cut"], "threshold (eos=cut, gen_length=64)"),
        (["model=tiny-wedlm"], "threshold (model=tiny-wedlm)"),
        (["model.path=/a/model"], "threshold (model.path=/a/model)"),
        (
            ["cache=d2cache", "cache.current_k=2"],
            "threshold (cache=d2cache, cache.current_k=2)",
        ),
        (["cache=window_dream"], "threshold (cache=window_dream)"),
        (
            ["+schedule@sampler.threshold=linear", "sampler.threshold.end=0.7"],
            "threshold (threshold=linear(start=1.0, slope=-0.02, end=0.7, over=sequence))",
        ),
        (
            ["+schedule@sampler.threshold=per_block"],
            "threshold (threshold=per_block(values_by_block=[0.95, 0.9]))",
        ),
        (
            ["sampler/region=uneven", "sampler.region.block_length=5"],
            "threshold (region=uneven, region.block_length=5)",
        ),
    ],
)
def test_labels(options: list[str], expected: str) -> None:
    assert label(compose(["sampler=threshold", *options]), "threshold") == expected


def test_a_sampler_inside_another_one() -> None:
    options = ["sampler=eotp", "sampler@sampler.base=threshold", "sampler.base.threshold=0.5"]
    assert label(compose(options), "eotp") == "eotp (base=threshold, base.threshold=0.5)"


def _blocks(value: float) -> str:
    schedule = f"_target_: dllm.step.schedule.PerBlock, values_by_block: [{value}]"
    return f"sampler.threshold={{{schedule}}}"


@pytest.mark.parametrize(
    "swept",
    [
        ("gen_length=32", "gen_length=64"),
        ("seed=0", "seed=1"),
        ("batch_size=1", "batch_size=8"),
        ("sampler/proposer=greedy", "sampler/proposer=gumbel"),
        ("cache=d2cache", "cache=dual", "cache=none", "cache=prefix"),
        ("model.dtype=float32", "model.dtype=bfloat16"),
        (_blocks(0.5), _blocks(0.6)),
    ],
    ids=lambda swept: swept[0],
)
def test_cells_of_a_sweep_differ(swept: tuple[str, ...]) -> None:
    labels = []
    for cell in swept:
        labels.append(label(compose(["sampler=threshold", cell]), "threshold"))
    for ours, theirs in itertools.combinations(labels, 2):
        assert ours != theirs


def test_long_values_that_differ_anywhere_have_different_labels() -> None:
    folder = "/a/long/folder/of/many/models/" + "x" * 60
    paths = [f"{folder}/one", f"{folder}/two", f"{folder[:30]}y{folder[31:]}/two"]
    found = [label(compose([f"model.path={path}"]), "localleap") for path in paths]
    assert len(set(found)) == 3
    assert "/one" in found[0] and "/two" in found[1] and len(found[0]) < 100


def test_a_task_keeps_its_name() -> None:
    assert task_name(compose(["limit=1"])) == task_name(compose(["limit=64"])) == "demo"
    assert task_name(compose(["task=arithmetic", "task.max_terms=2"])) == "arithmetic (max_terms=2)"


@pytest.mark.parametrize(
    ("swept", "cell", "expected"),
    [
        ("sampler.threshold", "sampler.threshold=0.9", "threshold (threshold=0.9)"),
        ("sampler.threshold", "sampler.threshold=0.7", "threshold (threshold=0.7)"),
        ("gen_length", "seed=1", "threshold (gen_length=32, seed=1)"),
        ("cache", "cache=none", "threshold (cache=none)"),
        ("cache", "cache=dual", "threshold (cache=dual)"),
        ("constraint", "constraint=none", "threshold (constraint=none)"),
        ("model", "model=tiny-llada", "threshold (model=tiny-llada)"),
        ("model.dtype", "seed=0", "threshold (model.dtype=float32)"),
        ("sampler/region", "sampler/region=fixed", "threshold (region=fixed)"),
        ("sampler.region.block_length", "seed=0", "threshold (region.block_length=32)"),
        ("sampler", "seed=0", "threshold"),
        ("task", "task=json", "threshold"),
        ("limit", "limit=3", "threshold"),
        ("output", "output=x", "threshold"),
        ("sampler.radius", "seed=0", "threshold"),
    ],
)
def test_a_row_of_a_sweep_shows_what_is_swept(swept: str, cell: str, expected: str) -> None:
    assert label(compose(["sampler=threshold", cell]), "threshold", [swept]) == expected


def test_a_swept_option_of_the_task_stands_with_it() -> None:
    config = compose(["task=arithmetic"])
    assert (
        task_name(config, ["task.max_terms"]) == f"arithmetic (max_terms={config.task.max_terms})"
    )
