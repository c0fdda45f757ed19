"""Training rows of a trajectory, their loss, and the command on a tiny random model."""

import shutil
from pathlib import Path

import pytest
import torch
from killed_training import killed
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


@pytest.mark.parametrize("save", [1, 2, 4])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_anywhere_it_ends_as_if_undisturbed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: int, when: str
) -> None:
    """The first save is that of the trajectories."""
    monkeypatch.setattr(ListOperations, "grade", lambda *_: True)
    options = ["recipe.iterations=4", "recipe.save_minutes=0"]

    def train(name: str) -> tuple[dict[str, torch.Tensor], str]:
        execute(compose([*command(checkpoint, tmp_path / name), *options], "train_redundancy"))
        log = (tmp_path / name / "metrics.jsonl").read_text()
        return load_model(tmp_path / name / "model").state_dict(), log

    with killed(monkeypatch, save, when):
        train("killed")
    (resumed, log), (whole, expected) = train("killed"), train("whole")
    assert log == expected
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    "change",
    ["recipe.rest_weight=0.5", "recipe.iterations=1", "gen_length=16", "task.max_items=4", "model"],
)
def test_another_recipe_in_the_folder_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(ListOperations, "grade", lambda *_: True)
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    given = command(own, tmp_path / "out")
    execute(compose(given, "train_redundancy"))
    if change == "model":
        config = own / "config.json"
        config.write_text(config.read_text() + "\n")
        change = "recipe.save_minutes=1"
    with pytest.raises(ConfigError, match=r"holds a training with .*: choose another folder"):
        execute(compose([*given, change], "train_redundancy"))
