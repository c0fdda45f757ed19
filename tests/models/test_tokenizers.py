"""Tokenizer folders of every shape, against transformers' own reading of them."""

import json
import warnings
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from dllm.errors import ConfigError
from dllm.models import tokenizers
from dllm.models.chat import TEMPLATES
from dllm.models.tokenizers import Tokenizer, check_ids, load_tokenizer, with_format


TINY = Path(tokenizers.__file__).parent / "tiny"
TEXT = "Hello <|im_start|>user\n 3+4=7, äöü 漢字 <|mask|>\n\n"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"]
MARKERS = [
    *("<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<role>", "</role>", "<|role_end|>"),
]
"""What the other built-in formats are written with."""
CHAT = [
    {"role": "user", "content": " What is 3+4? "},
    {"role": "assistant", "content": "7"},
    {"role": "user", "content": "Sure?"},
]


def byte_vocab() -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def write_fast(folder: Path, further: list[str] | None = None, **config) -> Path:
    """tokenizer.json and tokenizer_config.json: the LLaDA families."""
    fast = FastTokenizer(BPE(byte_vocab(), []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([*SPECIALS, *(further or [])])
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
    assert ours.base.eos_token == "<|endoftext|>"


def test_dream_folder_without_running_its_code(tmp_path: Path) -> None:
    ours = load_tokenizer(write_slow(tmp_path))
    ids_agree(ours, transformers.Qwen2TokenizerFast.from_pretrained(tmp_path))
    assert ours.token(259) == "<|mask|>" and ours.base.mask_token == "<|mask|>"


def test_tokens_that_only_the_config_lists(tmp_path: Path) -> None:
    late = {"260": {"content": "<|late|>", "special": True}}
    ours = load_tokenizer(write_fast(tmp_path, added_tokens_decoder=late))
    assert ours.encode("a<|late|>")[-1] == 260
    write_fast(tmp_path, added_tokens_decoder={"300": {"content": "<|late|>"}})
    with pytest.raises(ConfigError, match=r"'<\|late\|>' gets the id 260, not 300"):
        load_tokenizer(tmp_path)
    write_fast(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<zz>": 3}')
    with pytest.raises(ConfigError, match=r"added_tokens.json: token '<zz>' gets the id .*, not 3"):
        load_tokenizer(tmp_path)


def test_unreadable_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="no tokenizer can be read") as caught:
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


def test_a_mask_token_that_is_not_the_models(tmp_path: Path) -> None:
    folder = write_fast(tmp_path)
    tokenizer = load_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    spelt = str(tokenizer.token(259))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"mask_token": spelt}))
    tokenizer = load_tokenizer(folder)
    check_ids(tokenizer, 300, 259, "model.path=x")
    check_ids(tokenizer, 300, -1, "model.path=x")
    with pytest.raises(ConfigError) as refused:
        check_ids(tokenizer, 300, 5, "model.path=x")
    for word in ("mask is 5 (", f"mask_token 259 ({spelt})", "set model.mask_id"):
        assert word in str(refused.value)


@pytest.fixture
def plain(tmp_path: Path) -> Tokenizer:
    return load_tokenizer(write_fast(tmp_path, MARKERS))


def rendered(plain: Tokenizer, name: str, chat: list | str = "Hi!", **options) -> str:
    return with_format(plain, name).render(chat, **options)


def test_plain(plain: Tokenizer) -> None:
    assert plain.render("Hi!") == "Hi!"  # a folder without a template
    assert plain.chat("Hi!") == plain.encode("Hi!")


def test_plain_behind_the_beginning_of_a_text(plain: Tokenizer, tmp_path: Path) -> None:
    begun = load_tokenizer(write_fast(tmp_path, MARKERS, bos_token="<|startoftext|>"))
    first = begun.base.convert_tokens_to_ids("<|startoftext|>")
    assert with_format(begun, "plain_bos").chat("Hi!") == [first, *begun.encode("Hi!")]
    with pytest.raises(ConfigError, match="the tokenizer names no token that begins a text"):
        with_format(plain, "plain_bos")


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
    with pytest.raises(
        ConfigError, match=r"model\.chat=llama2 is not one of plain, plain_bos, llama3"
    ):
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
    write_fast(tmp_path, MARKERS, bos_token="<|im_start|>", **given)
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
    as_text = plain.encode("<|im_end|>", special=False)
    assert len(as_text) == 10 and plain.decode(as_text) == "<|im_end|>"


def test_special_tokens_in_a_message_are_the_users_text(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}"
    ours = load_tokenizer(write_fast(tmp_path, chat_template=template))
    said = "a <|mask|><|mask|> <|im_end|>\ue000b"
    ids = ours.chat(said)
    assert [token for token in ids if token >= 256] == [257, 258]
    assert ours.decode(ids, skip_special_tokens=False) == f"<|im_start|>{said}<|im_end|>"
    assert ids[1:-1] == ours.encode(said, special=False)
    with_answer = [{"role": "user", "content": "x"}, {"role": "assistant", "content": said}]
    assert ours.chat(with_answer)[:3] == [257, *ours.encode("x"), 258]


FOLDERS = {
    "truncation": {"tokenizer.json": {"truncation": {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}}},
    "padding": {"tokenizer.json": {"padding": {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<|endoftext|>"}}},
    "added_tokens.json": {"added_tokens.json": {"<|late|>": 260}},
    "special_tokens_map": {"special_tokens_map.json": {"pad_token": "<|mask|>"}},
    "map of objects": {"special_tokens_map.json": {"bos_token": {
        "content": "<|im_start|>", "lstrip": False, "rstrip": False, "normalized": False,
        "single_word": False}}},
    "bos added": {"tokenizer_config.json": {"bos_token": "<|im_start|>", "add_bos_token": True}},
    "several templates": {"tokenizer_config.json": {"chat_template": [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}!"}]}},
    "template file": {"chat_template.jinja": "{{ eos_token }}{{ messages[0].content }}?"},
    "both templates": {
        "tokenizer_config.json": {"chat_template": "config"}, "chat_template.jinja": "file"},
    "template folder": {
        "chat_template.jinja": "first", "additional_chat_templates/rag.jinja": "second"},
    "generation block": {"chat_template.jinja":
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"},
    "date": {"chat_template.jinja": "{{ strftime_now('%Y') }}{{ messages[0].content }}"},
    "spaces": {"tokenizer_config.json": {"clean_up_tokenization_spaces": True}},
    "extra specials": {"tokenizer_config.json": {"extra_special_tokens": {"image": "<|late|>"}}},
    "additional": {"tokenizer_config.json": {"additional_special_tokens": ["a b"]}},
}  # fmt: skip
"""What training tools and hubs leave in a folder: file -> text, or values to be merged in."""


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_reads_as_transformers_reads_it(name: str, tmp_path: Path) -> None:
    write_fast(tmp_path, chat_template="{{ messages[0].content }}")
    for file, content in FOLDERS[name].items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, dict):
            old = json.loads(path.read_text()) if path.exists() else {}
            content = json.dumps({**old, **content})
        path.write_text(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)
    ours = load_tokenizer(tmp_path)
    text = TEXT + " a b <|late|> . ,"
    chat = [{"role": "user", "content": "copy: Anna Bob"}, {"role": "assistant", "content": "x"}]
    ids = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.render(chat) == theirs.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=False
    )
    assert ours.chat(chat) == theirs.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer_config.json", "[]", "holds a list, not an object"),
        ("tokenizer_config.json", '{"chat_template": {"default": "x"}}', "chat_template must be"),
        ("tokenizer_config.json", '{"chat_template": ["x"]}', "chat_template must be"),
        ("tokenizer_config.json", '{"added_tokens_decoder": ["x"]}', "added_tokens_decoder must"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"0": "x"}}', "added_tokens_decoder"),
        ("tokenizer_config.json", '{"eos_token": 5}', "eos_token=5 is no text"),
        ("special_tokens_map.json", "null", "holds null, not an object"),
        ("special_tokens_map.json", "{", "is not valid JSON"),
        ("added_tokens.json", '"x"', "holds a text, not an object"),
        ("tokenizer.json", "5", "holds 5, not an object"),
        ("tokenizer.json", "[" * 100_000, "is not valid JSON"),
    ],
)
def test_files_of_the_wrong_kind(file: str, content: str, message: str, tmp_path: Path) -> None:
    write_fast(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)


def test_a_format_is_refused_where_its_tokens_are_missing(tmp_path: Path) -> None:
    write_fast(tmp_path)
    with pytest.raises(ConfigError, match=r"no chat template: .* set model\.chat to one of"):
        load_tokenizer(tmp_path, "llama3")
    with pytest.raises(ConfigError, match=r"model\.chat=role: the format role needs the token <"):
        with_format(load_tokenizer(tmp_path), "role")


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{{ undefined.x }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for",
        "{{ 'a' * 10**9 }}",
        "{{ '%1000000000d' % 1 }}",
    ],
)
def test_templates_that_fail(template: str, tmp_path: Path) -> None:
    ours = load_tokenizer(write_fast(tmp_path, chat_template=template))
    with pytest.raises(ConfigError, match="can't render the messages") as caught:
        ours.render("Hi!")
    assert "\n" not in str(caught.value)


def test_an_empty_template_and_a_length_that_is_none(tmp_path: Path) -> None:
    folder = write_fast(tmp_path, MARKERS)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for change, words in (
        ({"chat_template": ""}, "its chat template is empty"),
        ({"model_max_length": "512"}, "model_max_length='512' is no number > 0"),
        ({"model_max_length": True}, "model_max_length=True is no number > 0"),
    ):
        path.write_text(json.dumps({**config, **change}))
        with pytest.raises(ConfigError, match=words):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    "folder", sorted(TINY.glob("*/tokenizer.json")), ids=lambda f: f.parent.name
)
def test_an_embedded_tokenizer_is_what_autotokenizer_finds(folder: Path) -> None:
    ours = load_tokenizer(folder.parent).base
    with warnings.catch_warnings(action="ignore"):
        theirs = transformers.AutoTokenizer.from_pretrained(folder.parent, local_files_only=True)
    assert type(ours) is type(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template
    assert ours(TEXT)["input_ids"] == theirs(TEXT)["input_ids"]
