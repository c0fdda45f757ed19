"""Tokenizer folders of every shape, against transformers' own reading of them."""

import json
from pathlib import Path

import pytest
import transformers
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE

from dllm.errors import ConfigError
from dllm.models.chat import TEMPLATES
from dllm.models.tokenizers import Tokenizer, check_ids, load_tokenizer, with_format


TEXT = "Hello <|im_start|>user\n 3+4=7, äöü 漢字 <|mask|>\n\n"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"]
CHAT = [
    {"role": "user", "content": " What is 3+4? "},
    {"role": "assistant", "content": "7"},
    {"role": "user", "content": "Sure?"},
]


def byte_vocab() -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def write_fast(folder: Path, **config) -> Path:
    """tokenizer.json and tokenizer_config.json: the LLaDA families."""
    fast = FastTokenizer(BPE(byte_vocab(), []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(SPECIALS)
    fast.save(str(folder / "tokenizer.json"))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder


def write_slow(folder: Path, **config) -> Path:
    """vocab.json, merges.txt and a class that needs remote code: Dream."""
    (folder / "vocab.json").write_text(json.dumps(byte_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {
        str(256 + i): {"content": token, "special": True, "normalized": False}
        for i, token in enumerate(SPECIALS)
    }
    fields = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": added,
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        **config,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    # Executing this file would stop the test.
    (folder / "tokenization_dream.py").write_text("raise SystemExit('remote code was run')\n")
    return folder


def ids_agree(ours: Tokenizer, theirs: transformers.PreTrainedTokenizerBase) -> None:
    ids = theirs.encode(TEXT, add_special_tokens=False)
    assert ours.encode(TEXT) == ids
    assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_fast_folder(tmp_path: Path) -> None:
    ours = load_tokenizer(write_fast(tmp_path))
    ids_agree(ours, transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False))
    assert len(ours) == 260 and ours.token(259) == "<|mask|>" and ours.token(260) is None
    assert ours.special == {"eos_token": "<|endoftext|>"}


def test_dream_folder_without_running_its_code(tmp_path: Path) -> None:
    ours = load_tokenizer(write_slow(tmp_path))
    ids_agree(ours, transformers.Qwen2TokenizerFast.from_pretrained(tmp_path))
    assert ours.token(259) == "<|mask|>" and ours.special["mask_token"] == "<|mask|>"


def test_tokens_that_only_the_config_lists(tmp_path: Path) -> None:
    late = {"260": {"content": "<|late|>", "special": True}}
    ours = load_tokenizer(write_fast(tmp_path, added_tokens_decoder=late))
    assert ours.encode("a<|late|>")[-1] == 260
    write_fast(tmp_path, added_tokens_decoder={"300": {"content": "<|late|>"}})
    with pytest.raises(ConfigError, match=r"'<\|late\|>' gets the id 260, not 300"):
        load_tokenizer(tmp_path)


def test_unreadable_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="can't be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DreamTokenizer"}')
    with pytest.raises(ConfigError, match="no tokenizer can be read"):
        load_tokenizer(tmp_path)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    write_slow(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(ConfigError, match="no tokenizer can be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_mask_token_and_size_are_checked(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_fast(tmp_path))
    check_ids(tokenizer, 300, 259, "model.path=x")
    check_ids(tokenizer, 300, -1, "model.path=x")
    with pytest.raises(ConfigError, match=r"no token for the mask id 280: set model\.mask_id"):
        check_ids(tokenizer, 300, 280, "model.path=x")
    with pytest.raises(ConfigError, match="has 260 ids, the model only 259 rows"):
        check_ids(tokenizer, 259, 1, "model.path=x")


@pytest.fixture
def plain(tmp_path: Path) -> Tokenizer:
    return load_tokenizer(write_fast(tmp_path))


def rendered(plain: Tokenizer, name: str, chat: list | str = "Hi!", **options) -> str:
    return with_format(plain, name).render(chat, **options)


def test_plain(plain: Tokenizer) -> None:
    assert plain.render("Hi!") == "Hi!"  # a folder without a template
    assert plain.chat("Hi!") == plain.encode("Hi!")


def test_llama3(plain: Tokenizer) -> None:
    assert rendered(plain, "llama3", CHAT) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nWhat is 3+4?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n7<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_chatml(plain: Tokenizer) -> None:
    assert rendered(plain, "chatml") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
    )
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}]
    assert rendered(plain, "chatml", system).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert "created by Alibaba Cloud" in rendered(plain, "chatml_qwen")


def test_qwen3(plain: Tokenizer) -> None:
    text = "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
    assert rendered(plain, "qwen3") == text
    assert rendered(plain, "qwen3", enable_thinking=True) == text
    closed = rendered(plain, "qwen3", enable_thinking=False)
    assert closed == text + "<think>\n\n</think>\n\n"


def test_role(plain: Tokenizer) -> None:
    assert rendered(plain, "role") == (
        "<role>SYSTEM</role>detailed thinking off<|role_end|>"
        "<role>HUMAN</role>Hi!<|role_end|><role>ASSISTANT</role>"
    )
    assert "thinking on<" in rendered(plain, "role", enable_thinking=True)


def test_unknown_format(plain: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"model\.chat=llama2 is not one of plain, llama3"):
        with_format(plain, "llama2")


TRICKY = """{% for message in messages %}
    {% if loop.first and message['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}
    {{ bos_token }}{{ message | tojson }}
    {% if loop.index > 1 %}{% break %}{% endif %}
{% endfor %}"""


@pytest.mark.parametrize("where", ["config", "list", "file"])
@pytest.mark.parametrize("template", [TRICKY, *TEMPLATES.values()])
def test_folder_templates_render_as_transformers_does(
    template: str, where: str, tmp_path: Path
) -> None:
    given = {
        "config": {"chat_template": template},
        "list": {"chat_template": [{"name": "default", "template": template}]},
        "file": {},
    }[where]
    write_fast(tmp_path, bos_token="<|im_start|>", **given)
    if where == "file":
        (tmp_path / "chat_template.jinja").write_text(template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    ours = load_tokenizer(tmp_path, "llama3")
    expected = theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert ours.render(CHAT) == expected
    assert ours.chat(CHAT) == theirs.encode(expected, add_special_tokens=False)


def test_template_refusals(tmp_path: Path) -> None:
    ours = load_tokenizer(write_fast(tmp_path, chat_template=TRICKY))
    with pytest.raises(ConfigError, match="can't render the messages: user first"):
        ours.render(CHAT[1:])
    hostile = load_tokenizer(write_fast(tmp_path, chat_template="{{ ''.__class__.__mro__ }}"))
    with pytest.raises(ConfigError, match="unsafe"):
        hostile.render("Hi!")


def test_added_tokens_in_the_text_are_tokens(plain: Tokenizer) -> None:
    assert plain.encode("<|im_end|>") == [258]
    assert isinstance(plain.fast.get_added_tokens_decoder()[258], AddedToken)
