"""Adapting a tiny autoregressive model: answers of its own, training that goes on after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dllm.config import build, compose
from dllm.errors import ConfigError
from dllm.models.adapter import read_adapter
from dllm.models.hub import ModelOptions, open_model
from dllm.models.masks import attention_mask
from dllm.models.transformer import Transformer
from dllm.training.adaptation import Adaptation, Trainer
from dllm.training.checkpoints import NAME
from dllm.training.distill import answers, greedy


def opened(folder: Path):
    return open_model(ModelOptions(name="tiny", path=str(folder)))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i} + {i}?"}) + "\n" for i in range(6)))
    return path


@pytest.fixture
def recipe(questions: Path) -> Adaptation:
    options = [
        "model=smollm2-diffusion",
        f"training.recipe.data.questions={questions}",
        "training.recipe.data.count=4",
        "training.recipe.data.longest_answer=10",
        "training.recipe.adapter.rank=2",
        "training.recipe.adapter.mask_id=2",
        "training.recipe.total_steps=4",
        "training.recipe.rows=2",
        "training.recipe.warmup_steps=1",
    ]
    return build(compose(options, "train").training.recipe, "training.recipe")


def test_greedy_answers_are_the_most_probable_tokens(tiny_llama: Path) -> None:
    model, _ = opened(tiny_llama)
    prompts = [[5, 6, 7], [9, 10, 11, 12, 13, 14], [20]]
    found = greedy(model, prompts, longest=7)
    for prompt, answer in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in answer:
            assert token == following(model, ids)
            ids.append(token)
        assert len(answer) == 7 or following(model, ids) in model.spec.eos_ids


def following(model: Transformer, ids: list[int]) -> int:
    slots = torch.arange(len(ids))
    mask = attention_mask(model.spec, slots, slots)
    return int(model.logits(model.hidden(torch.tensor([ids]), mask=mask)[0, -1]).argmax())


def test_answers_are_kept(tiny_llama: Path, tmp_path: Path) -> None:
    model, tokenizer = opened(tiny_llama)
    path = tmp_path / "answers.jsonl"
    first = answers(model, tokenizer, ["a", "bc"], path, longest=3, batch=2)
    with path.open("a") as file:
        file.write('{"question": "d", "lon')
    again = answers(model, tokenizer, ["bc", "d", "a"], path, longest=3, batch=2)
    assert [again[2], again[0]] == first and len(path.read_text().splitlines()) == 3
    assert answers(model, tokenizer, ["d"], path, longest=3, batch=2) == [again[1]]


def test_training_goes_on_to_the_same_adapter(
    tiny_llama: Path, recipe: Adaptation, tmp_path: Path
) -> None:
    whole = Trainer(*opened(tiny_llama), recipe, tmp_path / "whole")
    blocks = [whole.step()["block"] for _ in range(4)]
    assert blocks == [2, 8, 8, 8]
    cut = Trainer(*opened(tiny_llama), recipe, tmp_path / "cut")
    assert not cut.resume()
    for _ in range(2):
        cut.step()
    cut.save()
    rest = Trainer(*opened(tiny_llama), recipe, tmp_path / "cut")
    assert rest.resume() and rest.done == 2
    while rest.done < 4:
        rest.step()
    for name, tensor in whole.learnt.items():
        assert torch.equal(tensor, rest.learnt[name]), name
    assert read_adapter(tmp_path / "cut" / "adapter") == recipe.adapter
    assert rest.totals["tokens"] == whole.totals["tokens"]


def test_a_training_on_other_questions_or_another_base_does_not_go_on(
    tiny_llama: Path, recipe: Adaptation, questions: Path, tmp_path: Path
) -> None:
    trainer = Trainer(*opened(tiny_llama), recipe, tmp_path / "run")
    trainer.step()
    trainer.save()
    answered = (tmp_path / "run" / "answers.jsonl").read_bytes()
    base, tokenizer = opened(tiny_llama)
    base.embed.weight.data.mul_(2)
    with pytest.raises(ConfigError, match="holds a training with base_weights="):
        Trainer(base, tokenizer, recipe, tmp_path / "run")
    questions.write_text(questions.read_text().replace("?", "!"))
    with pytest.raises(ConfigError, match="holds a training with questions="):
        Trainer(*opened(tiny_llama), recipe, tmp_path / "run")
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == answered, "nothing is answered"


def test_answers_of_other_weights_are_given_anew(tiny_llama: Path, tmp_path: Path) -> None:
    model, tokenizer = opened(tiny_llama)
    path = tmp_path / "answers.jsonl"
    answers(model, tokenizer, ["a"], path, longest=3, batch=2)
    model.embed.weight.data.mul_(2)
    answers(model, tokenizer, ["a"], path, longest=3, batch=2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2 and lines[0]["model"] != lines[1]["model"]


def test_a_finished_training_writes_its_adapter_again(
    tiny_llama: Path, recipe: Adaptation, tmp_path: Path
) -> None:
    class Silent:
        def log(self, metrics: object, step: int) -> None:
            pass

    recipe = replace(recipe, total_steps=2)
    first = Trainer(*opened(tiny_llama), recipe, tmp_path).run(Silent())
    stored = tmp_path / "adapter" / "adapter.safetensors"
    kept = stored.read_bytes()
    stored.write_bytes(kept[:100])
    again = Trainer(*opened(tiny_llama), recipe, tmp_path)
    assert again.resume() and again.run(Silent()) == first
    assert stored.read_bytes() == kept


def test_the_loss_falls(tiny_llama: Path, recipe: Adaptation, tmp_path: Path) -> None:
    trainer = Trainer(*opened(tiny_llama), replace(recipe, total_steps=24), tmp_path)
    losses = [trainer.step()["loss"] for _ in range(24)]
    assert sum(losses[-4:]) < 0.95 * sum(losses[5:9])


def test_questions_that_are_none(tiny_llama: Path, recipe: Adaptation, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": 1}\n')
    for name in ("bad.jsonl", "absent.jsonl"):
        data = replace(recipe.data, questions=str(tmp_path / name))
        with pytest.raises(ConfigError, match=r"training\.recipe\.data\.questions=.*'question'"):
            Trainer(*opened(tiny_llama), replace(recipe, data=data), tmp_path)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("rows=0", "rows=0 must be >= 1"),
        ("micros=0", "micros=0 must be >= 1"),
        ("lanes=0", "lanes=0 must be >= 1"),
        ("total_steps=0", "total_steps=0 must be >= 1"),
        ("rate=-1", "rate=-1 must be >= 0"),
        ("opening=7", r"opening=7 is outside \[0, 1\]"),
        ("decay=-3", r"decay=-3 is outside \[0, 1\]"),
        ("decay=5", r"decay=5 is outside \[0, 1\]"),
        ("stages.pairs.until=0", r"stages.pairs.until=0 is outside \(0, 1\]"),
        ("stages.pairs.until=nan", "stages.pairs.until=nan must be finite"),
        ("stages.pairs.until=0.5", r"stages.fours.until=0.22 is outside \(0.5, 1\]"),
        ("stages.eights.until=0.9", "stages.eights.until=0.9: the last stage ends at 1"),
        ("stages.pairs.block=3", "stages.pairs.block=3 does not divide the last stage's, 8"),
        ("stages.pairs.block=0", "stages.pairs.block=0 must be >= 1"),
        ("adapter.block_size=4", "adapter.block_size=4 is not the last stage's block, 8"),
        ("adapter.mask_id=-1", "adapter.mask_id=-1 must be >= 0"),
        ("data.count=0", "data.count=0 must be >= 1"),
        ("data.kinds={nope: 3}", r"data.kinds=\{nope: 3\} names an entry that is not there"),
        ("data.kinds.copy=-1", "data.kinds.copy=-1 must be a number >= 0"),
        ("+data.kinds.nope=3", "data.kinds.nope=3 is no kind; there are questions, copy, "),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(option: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^training\.recipe\.{words}"):
        plus, name = ("+", option[1:]) if option[0] == "+" else ("", option)
        config = compose(["model=smollm2-diffusion", f"{plus}training.recipe.{name}"], "train")
        build(config.training.recipe, "training.recipe")


def test_a_mask_that_is_none_is_refused_before_anything_is_answered(
    tiny_llama: Path, recipe: Adaptation, tmp_path: Path
) -> None:
    base, tokenizer = opened(tiny_llama)
    for token in (10**6, base.spec.eos_ids[0]):
        other = replace(recipe, adapter=replace(recipe.adapter, mask_id=token))
        with pytest.raises(ConfigError, match=f"mask_id={token} is "):
            Trainer(base, tokenizer, other, tmp_path)
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.parametrize(
    "line", ["{}", "{bad}", "[1]}", '{"question": "a", "longest": 3, "ids": 5}']
)
def test_answers_that_are_none_are_one_line(tiny_llama: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"answers\.jsonl is damaged: remove it or choose"):
        answers(*opened(tiny_llama), ["a"], path, longest=3, batch=2)
    assert path.read_text() == line + "\n"


@pytest.mark.parametrize(
    "change", [{"adapter": {}}, {"optimizer": {}}, {"totals": {}}, {"window": 3}, {"step": "x"}]
)
def test_a_state_of_something_else_is_one_line(
    tiny_llama: Path, recipe: Adaptation, tmp_path: Path, change: dict
) -> None:
    Trainer(*opened(tiny_llama), recipe, tmp_path).save()
    state = torch.load(tmp_path / NAME, weights_only=True)
    torch.save(state | change, tmp_path / NAME)
    with pytest.raises(ConfigError, match=r"state\.pt is damaged: remove it or choose another"):
        Trainer(*opened(tiny_llama), recipe, tmp_path).resume()
