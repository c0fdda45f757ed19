"""Writes GGUF files by hand: a tiny Llama with the tokenizer of bytes."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers


BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<|im_end|>", "<|im_start|>", "<unused>", *BYTES, "ab"]
SIZES = {"embedding_length": 32, "feed_forward_length": 64, "block_count": 2}


def q4_1(values: np.ndarray) -> bytes:
    """`values` float32, a multiple of 32; the codes go up from each group's minimum."""
    out = b""
    for group in values.reshape(-1, 32):
        low = np.float16(group.min())
        scale = np.float16(max((group.max() - group.min()) / 15, 1e-3))
        codes = np.clip(np.rint((group - low) / scale), 0, 15).astype(np.uint8)
        out += scale.tobytes() + low.tobytes() + (codes[:16] | codes[16:] << 4).tobytes()
    return out


def q8_0(values: np.ndarray) -> bytes:
    out = b""
    for group in values.reshape(-1, 32):
        scale = np.float16(max(np.abs(group).max() / 127, 1e-3))
        out += (
            scale.tobytes() + np.clip(np.rint(group / scale), -127, 127).astype(np.int8).tobytes()
        )
    return out


ENCODE = {0: lambda values: values.astype("<f4").tobytes(), 3: q4_1, 8: q8_0}


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, tuple[int, np.ndarray]]) -> None:
    """`tensors`: name -> (type, values, slowest axis first)."""
    data, records = b"", b""
    for name, (kind, values) in tensors.items():
        data += b"\0" * (-len(data) % 32)
        shape = values.shape[::-1]
        records += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        records += struct.pack("<IQ", kind, len(data))
        data += ENCODE[kind](values)
    pairs = b"".join(string(key) + value(given) for key, given in metadata.items())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + pairs + records
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(given: Any) -> bytes:
    if isinstance(given, list):
        items = [value(item) for item in given]
        return (
            struct.pack("<I", 9)
            + items[0][:4]
            + struct.pack("<Q", len(items))
            + b"".join(item[4:] for item in items)
        )
    if isinstance(given, str):
        return struct.pack("<I", 8) + string(given)
    if isinstance(given, float):
        return struct.pack("<If", 6, given)
    return struct.pack("<II", 4, given)


def metadata() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        **{f"llama.{key}": size for key, size in SIZES.items()},
        "llama.context_length": 512,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 1e5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(TOKENS) - 3)],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
    }


def tensors(seed: int = 0) -> dict[str, tuple[int, np.ndarray]]:
    rng = np.random.default_rng(seed)
    width, wide = SIZES["embedding_length"], SIZES["feed_forward_length"]

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    found: dict[str, tuple[int, np.ndarray]] = {"token_embd.weight": (8, draw(len(TOKENS), width))}
    for i in range(SIZES["block_count"]):
        found |= {
            f"blk.{i}.attn_norm.weight": (0, 1 + draw(width)),
            f"blk.{i}.ffn_norm.weight": (0, 1 + draw(width)),
            f"blk.{i}.attn_q.weight": (3, draw(width, width)),
            f"blk.{i}.attn_k.weight": (3, draw(width // 2, width)),
            f"blk.{i}.attn_v.weight": (3, draw(width // 2, width)),
            f"blk.{i}.attn_output.weight": (3, draw(width, width)),
            f"blk.{i}.ffn_gate.weight": (3, draw(wide, width)),
            f"blk.{i}.ffn_up.weight": (3, draw(wide, width)),
            f"blk.{i}.ffn_down.weight": (3, draw(width, wide)),
        }
    return found | {"output_norm.weight": (0, 1 + draw(width))}
