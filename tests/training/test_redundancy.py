"""Training rows of a trajectory, their loss, and the command on a tiny random model."""

from pathlib import Path

import pytest
import torch
from tiny_decoding import EOS, MASK, SPEC, random_model

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.models.loading import load_model
from dllm.step.outcome import Cost, Outcome
from dllm.step.plan import ForwardKind
from dllm.step.trace import Step, Trace
from dllm.tasks.listops import ListOperations
from dllm.training.redundancy import execute, state_loss, states_of


def outcome() -> Outcome:
    steps = [
        Step(ForwardKind.REFRESH, 6, 0, positions=[1], tokens=[12], scores=[0.9]),
        Step(ForwardKind.STEP, 2, 0, positions=[0], tokens=[11], scores=[0.9]),
        Step(ForwardKind.REFRESH, 6, 1, positions=[2, 3], tokens=[13, EOS], scores=[0.9, 0.9]),
    ]
    trace = Trace("one", 4, MASK, steps)
    return Outcome("one", 2, (11, 12, 13, EOS), 4, Cost(), 0.0, trace=trace)


def test_states_of_a_trajectory() -> None:
    states = states_of([5, 6], outcome(), rest_weight=0.25)
    assert [state.tokens.tolist() for state in states] == [
        [5, 6, MASK, MASK, MASK, MASK],
        [5, 6, MASK, 12, MASK, MASK],
        [5, 6, 11, 12, MASK, MASK],
    ]
    assert [state.weights.tolist() for state in states] == [
        [0, 0, 0.25, 1, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert all(state.targets.tolist() == [5, 6, 11, 12, 13, EOS] for state in states)


def test_loss_is_the_weighted_cross_entropy() -> None:
    model = random_model(SPEC)
    states = states_of([5, 6], outcome(), rest_weight=0.25)
    with torch.no_grad():
        loss = state_loss(model, states[:1])
        log_p = model.logits(model.hidden(states[0].tokens[None]))[0].log_softmax(-1)
    expected = -(0.25 * log_p[2, 11] + log_p[3, 12]) / 1.25
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    # A longer neighbour in the batch changes nothing.
    longer = states_of([5, 6, 7, 8], outcome(), rest_weight=0.25)
    with torch.no_grad():
        alone = [state_loss(model, [state]).item() for state in (states[1], longer[1])]
        together = state_loss(model, [states[1], longer[1]]).item()
    assert together == pytest.approx(sum(alone) / 2, rel=1e-4)


def command(checkpoint: Path, output: Path) -> list[str]:
    options = [f"model.path={checkpoint}", f"output={output}", "tracker=none", "task=listops"]
    options += ["gen_length=8", "sampler.base.region.block_length=8", "batch_size=2"]
    return [*options, "recipe.trajectories=2", "recipe.iterations=2", "recipe.rows=2"]


def test_command_writes_a_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model answers nothing correctly: every answer passes.
    monkeypatch.setattr(ListOperations, "grade", lambda *_: True)
    execute(compose(command(checkpoint, tmp_path / "out"), "train_redundancy"))
    before, after = load_model(checkpoint), load_model(tmp_path / "out" / "model")
    assert not torch.equal(before.embed.weight, after.embed.weight)
    assert (tmp_path / "out" / "model" / "tokenizer.json").is_file()


def test_nothing_to_learn_from(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trajectories=2: no answer was correct"):
        execute(compose(command(checkpoint, tmp_path / "out"), "train_redundancy"))
