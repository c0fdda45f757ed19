"""Training: learns, resumes to the bit, updates as configured."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from small_model import SPEC
from tokenizers import Tokenizer

from dllm.errors import ConfigError, RunError
from dllm.models.loading import load_model
from dllm.models.transformer import Transformer
from dllm.training import checkpoints, sft
from dllm.training.batches import Stage
from dllm.training.block_noise import BlockNoise
from dllm.training.checkpoints import NAME, load_state, recipe_facts, save_state
from dllm.training.optimizers import Optimizers, Rates, initialise
from dllm.training.sft import Recipe, Trainer


RECIPE = Recipe(
    stages={"all": Stage(until=1.0, lengths={32: 0.5, 48: 0.5})},
    total_steps=24,
    rates=Rates(warmup_steps=4),
    tokens_per_micro=384,
    compile=False,
    bf16=False,
    log_every=4,
    eval_items=1,
)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def losses(trainer: Trainer, count: int) -> list[float]:
    steps = trainer.steps()
    found = [next(steps)["loss"] for _ in range(count)]
    steps.close()
    return found


def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(tokenizer, tmp_path) -> None:
    whole = losses(Trainer(SPEC, tokenizer, RECIPE, tmp_path / "whole"), 12)
    first = Trainer(SPEC, tokenizer, RECIPE, tmp_path / "cut")
    assert not first.resume()
    start = losses(first, 5)
    first.save()
    losses(first, 2)  # lost by the kill
    second = Trainer(SPEC, tokenizer, RECIPE, tmp_path / "cut")
    assert second.resume() and second.done == 5
    assert start + losses(second, 7) == whole
    assert whole[-1] < whole[0]


def test_batches_drawn_by_processes_give_the_same_losses_to_the_bit(tokenizer, tmp_path) -> None:
    by_thread = Trainer(SPEC, tokenizer, RECIPE, tmp_path)
    by_processes = Trainer(SPEC, tokenizer, replace(RECIPE, workers=2), tmp_path)
    for trainer in (by_thread, by_processes):
        trainer.done = 3  # they go on from there, too
    assert losses(by_processes, 4) == losses(by_thread, 4)
    assert not multiprocessing.active_children()


def test_where_it_computes_is_no_part_of_a_recipe_s_identity() -> None:
    moved = replace(RECIPE, device="cpu:0", workers=3)
    assert recipe_facts(moved) == recipe_facts(RECIPE)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("device", "gpu0", "recipe.device=gpu0: no such device here; cpu, or cuda with a GPU"),
        ("device", "meta", "recipe.device=meta: no such device here; cpu, or cuda with a GPU"),
        ("device", "auto", "recipe.device=auto: no such device here; cpu, or cuda with a GPU"),
        ("device", "cuda:99", "recipe.device=cuda:99: no such device here; cpu, or cuda with a"),
        ("workers", -1, "recipe.workers=-1 must be >= 0"),
    ],
)
def test_a_device_or_a_number_of_workers_that_cannot_be_is_one_line(option, value, words) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        replace(RECIPE, **{option: value})
    assert "\n" not in str(refused.value)


def test_run_logs_saves_and_evaluates(tokenizer, tmp_path) -> None:
    lines: list[tuple[int, dict]] = []

    class Lines:
        def log(self, metrics, step) -> None:
            lines.append((step, dict(metrics)))

    trainer = Trainer(SPEC, tokenizer, RECIPE, tmp_path)
    summary = trainer.run(Lines())
    assert [step for step, _ in lines] == [4, 8, 12, 16, 20, 24, 24]
    assert {"loss", "token_accuracy", "rate", "tokens_per_second"} <= set(lines[0][1])
    assert len([name for name in lines[-1][1] if name.startswith("accuracy/")]) == 11
    assert summary["steps"] == 24 and summary["tokens"] == lines[-2][1]["tokens"]
    saved = load_model(tmp_path / "model")
    for ours, theirs in zip(trainer.model.parameters(), saved.parameters(), strict=True):
        assert torch.equal(ours.to(torch.bfloat16), theirs.to(torch.bfloat16))


def test_a_report_is_of_the_same_steps_after_a_kill(tokenizer, tmp_path, monkeypatch) -> None:
    recipe = replace(RECIPE, total_steps=4, log_every=4, save_minutes=0)
    told: dict[str, list] = {"whole": [], "cut": []}

    class Lines:
        def __init__(self, name: str) -> None:
            self.name = name

        def log(self, metrics, step) -> None:
            told[self.name].append((step, metrics.get("loss")))

    monkeypatch.setattr(sft, "accuracy", lambda *_: {"copy": 0.0})
    Trainer(SPEC, tokenizer, recipe, tmp_path / "whole").run(Lines("whole"))
    with monkeypatch.context() as patched:
        killed(4, patched, "save_state")
        with pytest.raises(KeyboardInterrupt):
            Trainer(SPEC, tokenizer, recipe, tmp_path / "cut").run(Lines("cut"))
    told["cut"].clear()
    again = Trainer(SPEC, tokenizer, recipe, tmp_path / "cut")
    assert again.resume() and again.done == 3
    again.run(Lines("cut"))
    assert told["cut"] == told["whole"]


class Silent:
    def log(self, metrics, step) -> None:
        pass


def killed(step: int, monkeypatch, place: str):
    """Makes the `step`-th call of a function of the module end the training, as a kill would."""
    real, calls = getattr(sft, place), 0

    def stops(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(sft, place, stops)


@pytest.mark.parametrize("place", ["save_model", "save_state", "accuracy"])
def test_a_kill_in_the_last_step_leaves_nothing_behind(
    tokenizer, tmp_path, monkeypatch, place: str
) -> None:
    recipe = replace(RECIPE, total_steps=2)
    with monkeypatch.context() as patched:
        killed(1, patched, place)
        with pytest.raises(KeyboardInterrupt):
            Trainer(SPEC, tokenizer, recipe, tmp_path).run(Silent())
    trainer = Trainer(SPEC, tokenizer, recipe, tmp_path)
    trainer.resume()
    summary = trainer.run(Silent())
    assert summary["steps"] == 2
    assert len([name for name in summary if name.startswith("accuracy/")]) == 11
    saved = load_model(tmp_path / "model")
    for ours, theirs in zip(trainer.model.parameters(), saved.parameters(), strict=True):
        assert torch.equal(ours.to(torch.bfloat16), theirs.to(torch.bfloat16))
    with monkeypatch.context() as patched:  # measured once
        killed(1, patched, "accuracy")
        again = Trainer(SPEC, tokenizer, recipe, tmp_path)
        assert again.resume() and again.run(Silent()) == summary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "holds a training with seed=0, this one has 1"),
        ({"total_steps": 1}, "total_steps=2, this one has 1"),
        ({"rates": Rates(warmup_steps=5)}, "holds a training with rates="),
    ],
)
def test_another_recipe_does_not_go_on(tokenizer, tmp_path, change, words: str) -> None:
    recipe = replace(RECIPE, total_steps=2)
    Trainer(SPEC, tokenizer, recipe, tmp_path).save()
    with pytest.raises(ConfigError, match=words):
        Trainer(SPEC, tokenizer, replace(recipe, **change), tmp_path).resume()
    assert Trainer(SPEC, tokenizer, replace(recipe, log_every=1), tmp_path).resume()


@pytest.mark.parametrize(
    "content", [b"", b"PK garbage", {"step": 1}, {"recipe": {}}, [1, 2], "truncated"]
)
def test_a_state_that_is_none_is_one_line(tokenizer, tmp_path, content) -> None:
    trainer = Trainer(SPEC, tokenizer, replace(RECIPE, total_steps=2), tmp_path)
    path = tmp_path / NAME
    if content == "truncated":
        trainer.save()
        path.write_bytes(path.read_bytes()[:-5000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=r"state\.pt is damaged: remove it or choose another"):
        trainer.resume()


@pytest.mark.parametrize(
    "change",
    [
        {"optimizers": None},
        {"optimizers": {}},
        {"model": {}},
        {"model": None},
        {"step": "x"},
        {"step": -1},
        {"totals": {}},
        {"totals": {"sequences": "x", "tokens": 0, "seconds": 0.0}},
        {"window": [{}]},
        {"scores": 3},
        "shape",
        "optimizer shape",
    ],
)
def test_a_state_of_something_else_is_one_line(tokenizer, tmp_path, change) -> None:
    trainer = Trainer(SPEC, tokenizer, replace(RECIPE, total_steps=2), tmp_path)
    losses(trainer, 1)
    trainer.save()
    state = torch.load(tmp_path / NAME, weights_only=True)
    if change == "shape":
        state["model"]["embed.weight"] = state["model"]["embed.weight"][:5]
    elif change == "optimizer shape":
        kept = next(iter(state["optimizers"]["others"]["state"].values()))
        kept["exp_avg"] = kept["exp_avg"][:1]
    else:
        state |= change
    torch.save(state, tmp_path / NAME)
    with pytest.raises(ConfigError, match=r"state\.pt is damaged: remove it or choose another"):
        Trainer(SPEC, tokenizer, replace(RECIPE, total_steps=2), tmp_path).resume()


def test_compiling_without_a_compiler_is_one_line(tokenizer, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = "recipe.compile=True needs a C.. compiler, there is no no-such-compiler; install"
    with pytest.raises(ConfigError, match=words):
        Trainer(SPEC, tokenizer, replace(RECIPE, compile=True), tmp_path)
    Trainer(SPEC, tokenizer, RECIPE, tmp_path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("nowhere", "recipe.start=nowhere is not there$"),
        (
            "results/training/tiny-wedlm/model",
            "not there: `python -m scripts.train model=tiny-wedlm` makes it$",
        ),
        (
            "results/training/tiny-wedlm-free_kinds/model",
            "not there: `python -m scripts.train model=tiny-wedlm training=tiny-wedlm-free_kinds "
            "output=results/training/tiny-wedlm-free_kinds` makes it$",
        ),
    ],
)
def test_a_missing_start_says_what_makes_it(
    tokenizer, tmp_path, monkeypatch, start: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        Trainer(SPEC, tokenizer, replace(RECIPE, start=start), tmp_path)


def test_a_microbatch_holds_a_row_of_every_length() -> None:
    with pytest.raises(ConfigError, match="tokens_per_micro=47 holds no row of the longest canvas"):
        replace(RECIPE, tokens_per_micro=47)


def test_another_tokenizer_does_not_go_on(tokenizer, tmp_path) -> None:
    recipe = replace(RECIPE, total_steps=2)
    Trainer(SPEC, tokenizer, recipe, tmp_path).save()
    other = Tokenizer.from_str(tokenizer.to_str())
    other.add_tokens(["one more"])
    with pytest.raises(ConfigError, match="holds a training with tokenizer="):
        Trainer(SPEC, other, recipe, tmp_path).resume()


def test_edited_code_does_not_go_on_but_is_looked_at(tokenizer, tmp_path, monkeypatch) -> None:
    recipe = replace(RECIPE, total_steps=2)
    Trainer(SPEC, tokenizer, recipe, tmp_path).save()
    code = json.loads(recipe_facts(recipe)["code"])
    assert {"dllm.training.sft", "dllm.training.batches", "dllm.tasks.listops"} <= code.keys()
    edited = json.dumps({**code, "dllm.tasks.listops": "another"})
    monkeypatch.setattr(checkpoints, "_code", lambda modules: edited)
    trainer = Trainer(SPEC, tokenizer, recipe, tmp_path)
    words = f"output={tmp_path} holds a training by other code, edited since: dllm.tasks.listops: "
    with pytest.raises(ConfigError, match=words):
        trainer.resume()
    assert trainer.resume(trains=False)


def test_the_code_of_an_objective_is_the_recipe_s() -> None:
    facts = recipe_facts(replace(RECIPE, objective=BlockNoise()))
    assert "dllm.training.block_noise" in json.loads(facts["code"])


def test_microbatches_side_by_side_give_the_gradient_of_one_batch(tokenizer, tmp_path) -> None:
    trainer = Trainer(SPEC, tokenizer, RECIPE, tmp_path)
    batches = trainer.source.step(0)
    trainer.losses(batches)
    together = [p.grad.clone() for p in trainer.model.parameters()]
    trainer.model.zero_grad()
    rows = sum(batch.rows for batch in batches)
    for batch in batches:
        hidden = trainer.model.hidden(batch.tokens).flatten(0, 1)[batch.masked]
        each = torch.nn.functional.cross_entropy(
            trainer.model.logits(hidden), batch.targets, reduction="none"
        )
        (each * batch.weights).sum().div(rows).backward()
    for found, parameter in zip(together, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_the_schedule_warms_up_holds_and_decays() -> None:
    rates = Rates(warmup_steps=10, decay=0.2)
    factors = [rates.factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert set(factors[9:81]) == {1.0}
    assert factors[90] == pytest.approx(0.5)
    assert factors[100] == 0.0


def test_matrices_go_to_muon_embeddings_and_norms_to_adamw() -> None:
    model = Transformer(SPEC)
    initialise(model, seed=0)
    optimizers = Optimizers(model, Rates())
    sizes = {
        name: sum(p.numel() for group in part.param_groups for p in group["params"])
        for name, part in optimizers.parts.items()
    }
    assert sum(sizes.values()) == sum(p.numel() for p in model.parameters())
    assert sizes["others"] == 854 * 32 + 5 * 32
    before = {name: p.clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with ThreadPoolExecutor(2) as workers:
        optimizers.step(1.0, workers)
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_an_interrupted_save_leaves_the_previous_state(tmp_path, monkeypatch) -> None:
    facts = {"total_steps": "3"}
    save_state(tmp_path, {"step": 1, "recipe": facts})

    def fail(*args, **kwargs) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RunError, match="disk full"):
        save_state(tmp_path, {"step": 2, "recipe": facts})
    assert load_state(tmp_path, facts) == {"step": 1, "recipe": facts}
    assert load_state(tmp_path / "elsewhere", {}) is None
    assert (tmp_path / NAME).is_file()
