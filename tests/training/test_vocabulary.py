"""The embedded tokenizer: reproducible, lossless, one token per word of the pools."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import dllm.models
from dllm.config import compose
from dllm.training.vocabulary import (
    SPECIALS,
    WORDS,
    chat_prompt,
    save_tokenizer,
    train_tokenizer,
)


SHIPPED = Path(dllm.models.__file__).parent / "tiny" / "tiny-llada"


def test_the_command_reproduces_the_shipped_files(tmp_path) -> None:
    save_tokenizer(train_tokenizer(864), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((SHIPPED / name).read_text())


def test_every_text_survives_a_round_trip() -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))

    @settings(max_examples=200, deadline=None)
    @given(st.text())
    def round_trip(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text

    round_trip()


def test_words_are_one_token_digits_and_blanks_of_a_square_stand_alone(tokenizer) -> None:
    for word in WORDS:
        assert len(tokenizer.encode(word).ids) == 1
        assert len(tokenizer.encode(f" {word}").ids) == 1
    assert len(tokenizer.encode("4711").ids) == 4
    assert tokenizer.encode("12.4 ...3").tokens == ["1", "2", ".", "4", "Ġ", ".", ".", ".", "3"]


def test_markup_is_four_tokens_the_mask_first_and_eos_second(tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIALS] == [0, 1, 2, 3]
    ids = tokenizer.encode(chat_prompt("copy: Mia") + "Mia<|endoftext|>").ids
    assert [i for i in ids if i < 4] == [2, 3, 1]


def test_transformers_reads_it_and_renders_the_chat_format() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    ours = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    question = [{"role": "user", "content": "reverse: Mia Tom"}]
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert text == chat_prompt("reverse: Mia Tom")
    assert tokenizer(text)["input_ids"] == ours.encode(text).ids
    answered = [*question, {"role": "assistant", "content": "Tom Mia"}]
    assert tokenizer.apply_chat_template(answered, tokenize=False) == text + "Tom Mia<|endoftext|>"
    assert (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 1)


def test_brackets_that_close_one_another_stay_apart(tokenizer) -> None:
    words = list(tokenizer.get_vocab())
    assert max(sum(word.count(bracket) for bracket in "}])") for word in words) == 1


def test_the_recipe_s_digits_are_the_vocabulary_s(tokenizer) -> None:
    objective = compose([], "train").training.recipe.objective
    assert list(objective.tokens) == [tokenizer.token_to_id(digit) for digit in "0123456789"]
