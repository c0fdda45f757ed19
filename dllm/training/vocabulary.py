"""The embedded models' tokenizer: byte-level BPE trained on generated text.

`python -m dllm.training.vocabulary FOLDER` writes tokenizer.json and tokenizer_config.json.
Any text survives a round trip, digits and the blanks of a square stand alone, and every word of the
pools is one token, with and without a blank before it (checked: the tasks' lengths rest on it).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dllm.errors import ConfigError
from dllm.tasks.arithmetic import Arithmetic
from dllm.tasks.extraction import JsonExtraction
from dllm.tasks.latin import LatinSquare
from dllm.tasks.listops import ListOperations
from dllm.tasks.suite import Mixture
from dllm.tasks.words import CITIES, JOBS, NAMES, PETS


MASK, EOS, USER, ASSISTANT = SPECIALS = ("<|mask|>", "<|endoftext|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# letters with their blank | one digit | one dot | punctuation with its blank | any white space
PIECES = r" ?\p{L}+|\p{N}|\.| ?[^\s\p{L}\p{N}.]+|\s"

FLAT = (  # forms without nested brackets, which would merge into tokens of many closings
    ListOperations(max_items=8),
    Arithmetic(max_terms=4, largest_term=50),
    JsonExtraction(max_fields=4, max_people=1, nested=False),
    LatinSquare(),
)

WORDS = (*NAMES, *CITIES, *JOBS, *PETS)


def corpus(samples: int = 2000, seed: int = 0) -> Iterator[str]:
    """The distinct pieces of generated text, each often and mostly without its blank.

    Counting pieces once keeps rare words whole; leaving out blanks makes the merges build the word
    before the blank is joined to it, so that both forms share them.
    """
    stream = Mixture(FLAT).stream(Random(f"vocabulary/{seed}"))
    split = pre_tokenizers.Split(Regex(PIECES), "isolated").pre_tokenize_str
    pieces: dict[str, None] = dict.fromkeys(WORDS)  # a dict keeps their order
    for _ in range(samples):
        sample = next(stream)
        for text in (sample.prompt, sample.answer):
            pieces.update(dict.fromkeys(piece for piece, _ in split(text)))
    for piece in pieces:
        yield from [piece.strip()] * 50
        yield piece
    for word in WORDS:
        yield f" {word}"


def train_tokenizer(vocab_size: int, samples: int = 2000, seed: int = 0) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(samples, seed), trainer)
    split = [w for word in WORDS for w in (word, f" {word}") if len(tokenizer.encode(w).ids) > 1]
    if split:
        raise ValueError(
            f"vocab_size={vocab_size} leaves {len(split)} words split, e.g. {split[:3]}"
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "mask_token": MASK,
        "eos_token": EOS,
        "pad_token": EOS,
        "additional_special_tokens": [USER, ASSISTANT],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def read_tokenizer(option: str, path: Path) -> Tokenizer:
    """Raises `ConfigError` naming `option` for a file that is none."""
    if not path.is_file():
        raise ConfigError(f"{option}={path} does not exist: python -m dllm.training.vocabulary")
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # the library raises nothing narrower
        raise ConfigError(f"{option}={path} is no tokenizer.json") from None


def chat_prompt(prompt: str) -> str:
    """The text in front of the response, as the chat template renders one user message."""
    return f"{USER}{prompt}{ASSISTANT}"


if __name__ == "__main__":
    save_tokenizer(train_tokenizer(vocab_size=864), Path(sys.argv[1]))
