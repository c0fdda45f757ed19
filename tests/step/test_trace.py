"""Traces: replay equals the output, files keep everything, a kill costs one trace at most."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_decoding import MASK, decode, decode_written, ragged_prompts, sampler

from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace, pack_traces, read_traces


def eventful() -> Trace:
    """A trace that uses every field."""
    kinds = ForwardKind
    steps = [
        Step(kinds.PREFILL, fed=3, block=0),
        Step(
            kinds.STEP,
            fed=7,
            block=0,
            opened=(0, 4),
            spans=[(-1, 4)],
            positions=[0, 2],
            tokens=[11, 13],
            scores=[0.9, 0.5],
            marks={"anchors": [2]},
        ),
        Step(
            kinds.STEP,
            fed=7,
            block=0,
            positions=[1],
            tokens=[12],
            scores=[0.1],
            remasked=[0],
            edits=[(2, 15)],
        ),
        Step(kinds.REFRESH, fed=9, block=1, positions=[0], tokens=[14], scores=[1.0], length=6),
        Step(kinds.STEP, fed=9, block=1, positions=[4], tokens=[1], scores=[0.5], fill=(5, 1)),
        Step(kinds.COMMIT, fed=4, block=1, length=5),
    ]
    return Trace("eventful", 4, MASK, steps)


def test_replay_shows_every_canvas() -> None:
    assert [canvas.tolist() for canvas in eventful().replay()] == [
        [0, 0, 0, 0],
        [11, 0, 13, 0],
        [0, 12, 15, 0],
        [14, 12, 15, 0, 0, 0],
        [14, 12, 15, 0, 1, 1],
        [14, 12, 15, 0, 1],
    ]


def test_commits_list_everything_that_was_written() -> None:
    assert eventful().commits() == [
        [],
        [(0, 11), (2, 13)],
        [(1, 12), (2, 15), (0, MASK)],
        [(0, 14)],
        [(4, 1)],
        [],
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["sampler=low_confidence"],
        ["sampler=localleap", "sampler.threshold=0.5", "sampler.relaxed_threshold=0.2"],
        ["sampler=threshold", "sampler.threshold=0.3", "sampler/proposer=gumbel"],
    ],
)
def test_a_decoded_trace_replays_to_the_output(options: list[str]) -> None:
    for outcome in decode(sampler(*options), ragged_prompts(), batch_size=4, record=True).values():
        assert outcome.trace is not None
        canvases = list(outcome.trace.replay())
        assert tuple(canvases[-1]) == outcome.tokens
        assert len(canvases) == outcome.cost.nfe
        assert sum(step.fed for step in outcome.trace.steps) == outcome.cost.rows
        written = sum(len(step.positions) - len(step.remasked) for step in outcome.trace.steps)
        assert written == outcome.committed


def test_a_trace_does_not_change_the_tokens() -> None:
    rule = sampler("sampler=threshold", "sampler/proposer=gumbel")
    bare = decode(rule, ragged_prompts())
    assert all(outcome.trace is None for outcome in bare.values())
    recorded = decode(rule, ragged_prompts(), record=True)
    assert {k: o.tokens for k, o in bare.items()} == {k: o.tokens for k, o in recorded.items()}


def test_anchors_are_marked() -> None:
    rule = sampler("sampler=localleap", "sampler.threshold=0.9", "sampler.radius=1")
    outcome = decode_written(rule, [4, 5, 6, 7], [0.95, 0.8, 0.8, 0.97], record=True)
    assert outcome.trace is not None
    assert outcome.trace.steps[0].marks == {"anchors": [0, 3]}
    assert outcome.trace.steps[0].positions == [0, 1, 2, 3]


def test_json_leaves_out_defaults_and_keeps_the_rest() -> None:
    data = eventful().to_json()
    assert data["steps"][0] == {"kind": "prefill", "fed": 3, "block": 0}
    assert Trace.from_json(data) == eventful()


def test_files_give_back_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl.gz"
    traces = [
        outcome.trace
        for outcome in decode(sampler("sampler=factor"), ragged_prompts(), record=True).values()
    ]
    with open(path, "ab") as file:
        file.write(pack_traces(traces[:2]))
        for trace in traces[2:]:
            file.write(pack_traces([trace]))
    assert list(read_traces(path)) == traces
    path.write_bytes(b"")
    assert list(read_traces(path)) == []


@pytest.mark.parametrize("cut", [1, 8, 9, 20, -1])
def test_a_file_cut_by_a_kill_loses_the_last_trace_only(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "traces.jsonl.gz"
    whole = pack_traces([eventful()])
    path.write_bytes(whole + whole + whole[:cut])
    assert list(read_traces(path)) == [eventful(), eventful()]


def test_more_traces_than_one_read(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl.gz"
    generator = np.random.default_rng(0)
    step = Step(ForwardKind.STEP, 9, 0, positions=list(range(99)), tokens=[5] * 99)
    traces = [
        Trace(f"s{i}", 99, MASK, [replace(step, scores=generator.random(99).tolist())])
        for i in range(150)
    ]
    path.write_bytes(b"".join(pack_traces([trace]) for trace in traces))
    assert path.stat().st_size > 1 << 16
    assert list(read_traces(path)) == traces
