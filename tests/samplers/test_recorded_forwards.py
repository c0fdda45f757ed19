"""Forwards that are recorded and replayed give what eager ones give, under every cache."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from test_battery import CACHES, _first_with, _model, prompts
from torch import Tensor

from dllm.forward import graphs, predictor
from dllm.forward.grouping import Machine
from dllm.forward.predictor import Predictor


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("supplied")


class Recorder:
    """In a GPU's place: what is replayed reads and writes the same tensors each time."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, compute: Callable[[], Tensor], pool: Any) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        result = torch.full_like(compute(), torch.nan)

        def replay() -> None:
            self.replayed += 1
            result.copy_(compute())

        return replay, result


NEVER = {"d2cache", "dllm_cache", "encoder"}
"""Caches whose forwards choose their rows inside, or tell the block from the rest."""


def told(policy: str) -> AbstractContextManager[Any]:
    """That nothing is recorded."""
    if policy not in ("d2cache", "dllm_cache"):
        return nullcontext()
    return pytest.warns(UserWarning, match="records no forward that chooses its rows inside")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("policy", CACHES)
def test_every_cache(
    policy: str, batch: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting, wanted = _first_with(policy, folder), prompts(4, 4, 11, 11, 4)
    batch = min(batch, fitting.batch)
    eager = fitting.decode(wanted, batch_size=batch)
    recorder = Recorder()
    monkeypatch.setattr(graphs, "record", recorder.record)
    monkeypatch.setattr(graphs.Memory, "new", lambda: None)
    monkeypatch.setattr(graphs, "WORTH", 1)
    model = deepcopy(_model(fitting.spec))
    model.graphs = True
    with told(policy):
        replayed = fitting.decode(wanted, Predictor(model), batch_size=batch)
    for one, two in zip(eager, replayed, strict=True):
        assert one.tokens == two.tokens and one.cost.nfe == two.cost.nfe
    if policy in NEVER:
        assert recorder.recorded == 0
    elif batch == 1:
        assert recorder.replayed > recorder.recorded > 0


def test_sequences_that_are_no_neighbours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitting, wanted = _first_with("dual", folder), prompts(4, 11, 4, 7, 11, 4, 9)
    eager = fitting.decode(wanted)
    # As on a GPU they share a forward, here at any price.
    monkeypatch.setattr(predictor, "CPU", Machine(forward=1, most=inf, picks=True))
    recorder, picked = Recorder(), 0
    monkeypatch.setattr(graphs, "record", recorder.record)
    monkeypatch.setattr(graphs.Memory, "new", lambda: None)
    monkeypatch.setattr(graphs, "WORTH", 1)
    run = graphs.Graphs.run

    def noted(self: graphs.Graphs, fixed: Any, inputs: Any, compute: Any) -> Tensor:
        nonlocal picked
        before = recorder.replayed
        found = run(self, fixed, inputs, compute)
        # Tokens, positions, perhaps a mask, the picked sequences, and what is written where.
        picked += recorder.replayed > before and any(i.dim() == 1 for i in inputs)
        return found

    monkeypatch.setattr(graphs.Graphs, "run", noted)
    model = deepcopy(_model(fitting.spec))
    model.graphs = True
    replayed = fitting.decode(wanted, Predictor(model), batch_size=5)
    assert picked
    for one, two in zip(eager, replayed, strict=True):
        assert one.tokens == two.tokens and one.cost.nfe == two.cost.nfe


@pytest.mark.gpu
@pytest.mark.parametrize("policy", CACHES)
def test_on_a_gpu(policy: str, folder: Path) -> None:
    fitting, wanted = _first_with(policy, folder), prompts(4, 4, 11, 11, 4)
    model = deepcopy(_model(fitting.spec)).cuda()
    if policy == "encoder":
        return  # draws
    eager = fitting.decode(wanted, Predictor(model))
    model.graphs = True
    with told(policy):
        replayed = fitting.decode(wanted, Predictor(model))
    assert [one.tokens for one in eager] == [one.tokens for one in replayed]


def test_the_latest_shapes_stay_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(graphs, "record", recorder.record)
    monkeypatch.setattr(graphs.Memory, "new", lambda: None)
    monkeypatch.setattr(graphs, "WORTH", 0)
    monkeypatch.setattr(graphs, "KEPT", 2)
    kept = graphs.Graphs()
    for width in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2
        x = torch.randn(width)
        assert torch.equal(kept.run("double", [x], lambda inputs: 2 * inputs[0]), 2 * x)
    assert recorder.recorded == 4
    x = torch.randn(2)
    assert torch.equal(kept.run("triple", [x], lambda inputs: 3 * inputs[0]), 3 * x)


def test_all_are_recorded_on_the_inputs_device_in_one_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside: list[Tensor] = []
    seen: list[tuple[str, bool]] = []

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        inside.append(tensor)
        yield
        inside.pop()

    def record(compute: Callable[[], Tensor], memory: object) -> tuple[Callable[[], None], Tensor]:
        seen.append(("record", bool(inside)))
        assert memory == "the only one"
        return lambda: seen.append(("replay", bool(inside))), compute()

    made = iter(["the only one"])
    monkeypatch.setattr(graphs.torch.cuda, "device_of", device_of)
    monkeypatch.setattr(graphs.Memory, "new", lambda: next(made))
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "WORTH", 0)
    recorder = graphs.Graphs()
    for rows in (3, 4):
        recorder.run("x", [torch.ones(rows)], lambda inputs: 2 * inputs[0])
    assert seen == 2 * [("record", True), ("replay", True)] and not inside
