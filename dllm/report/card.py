"""The text that `scripts.inspect` prints about a model."""

from collections.abc import Iterator, Sequence

from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions, open_spec
from dllm.models.sizes import memory, sizes
from dllm.models.spec import NO_MASK, ModelSpec
from dllm.report.support import here, supported


def describe(
    options: ModelOptions, batches: Sequence[int], lengths: Sequence[int], rows: int
) -> Iterator[str]:
    """Lines about family, sizes, memory, samplers and caches."""
    for name, values in (("batches", batches), ("lengths", lengths), ("rows", [rows])):
        if not values or min(values) < 1:
            raise ConfigError(f"{name}={list(values)} must hold numbers >= 1")
    spec = open_spec(options)
    source = options.path or options.hub or "embedded"
    yield f"{options.name} ({source}), {options.dtype}"
    own, silent = here(options)
    yield from _architecture(spec)
    if silent is not None:
        yield f"  {'prompts':<24}no: {silent}"
    yield from _sizes(spec)
    yield from _memory(spec, options, batches, lengths, rows)
    for group in ("sampler", "cache"):
        yield f"{group}s"
        for entry in supported(group, spec, own):
            reasons = "; ".join(entry.refusals)
            yield f"  {entry.option:<24}{'no: ' + reasons if reasons else 'yes'}"


def _architecture(spec: ModelSpec) -> Iterator[str]:
    kind = spec.attention.replace("_", "-")
    if spec.attention == "block_causal":
        kind += f", blocks of {spec.block_size} from position 0"
    elif spec.attention == "causal_prefix":
        kind += (
            f": blocks of {spec.block_size} from the prompt's end read all before and themselves"
        )
    elif spec.attention == "causal" and not spec.autoregressive:
        kind += " over physical order: decided tokens first, then masks"
    logits = "row i predicts position i"
    if spec.logit_shift:
        logits = "row i-1 predicts position i"
        if spec.attention == "block_causal":
            logits += "; a block's first position comes from the last row of the block before"
    rotary = f"theta {spec.rope_theta:g}, {spec.rotary_dim} of {spec.head_dim} dimensions"
    yield f"  {'family':<24}{spec.family}"
    yield (
        f"  {'shape':<24}{spec.n_layers} layers x {spec.d_model}, {spec.n_heads} heads of "
        f"{spec.head_dim} ({spec.n_kv_heads} for keys and values)"
    )
    if (two := spec.windows) is not None:
        yield (
            f"  {'layers':<24}{spec.n_layers - len(two.full_layers)} of a window of {two.window}, "
            f"{len(two.full_layers)} of everything with heads of {two.head_dim} "
            f"({two.n_kv_heads} for keys and values)"
        )
    if spec.moe is not None:
        moe = spec.moe
        shared = f", shared expert of {moe.d_shared}" if moe.d_shared else ""
        yield (
            f"  {'experts':<24}{moe.top_k} of {moe.n_experts} of width {moe.d_expert}{shared}, "
            f"{moe.router} router"
        )
    yield f"  {'attention':<24}{kind}"
    yield f"  {'logits':<24}{logits}"
    yield f"  {'rotary':<24}{rotary}{', in float32' if spec.rope_fp32 else ''}"
    trained = spec.trained_positions
    yield f"  {'positions':<24}{spec.max_positions}{f' (trained on {trained})' if trained else ''}"
    mask = "none" if spec.mask_id == NO_MASK else str(spec.mask_id)
    if spec.noise == "uniform":
        mask += " (random tokens)"
    ends = ", ".join(map(str, spec.eos_ids))
    yield f"  {'ids':<24}mask {mask}, end {ends}, pad {spec.pad_id}, {spec.vocab_size} rows"


def _sizes(spec: ModelSpec) -> Iterator[str]:
    size = sizes(spec)
    yield "parameters"
    for name, count in size.parts.items():
        yield f"  {name:<24}{count:>18,}"
    yield f"  {'total':<24}{size.parameters:>18,}"
    if spec.moe is not None:
        yield f"  {'active per token':<24}{size.active:>18,}"


def _memory(
    spec: ModelSpec,
    options: ModelOptions,
    batches: Sequence[int],
    lengths: Sequence[int],
    rows: int,
) -> Iterator[str]:
    fitting = tuple(dict.fromkeys(min(length, spec.max_positions) for length in lengths))
    yield f"memory ({options.dtype}; logits of {rows} positions per sequence)"
    yield f"  {'batch':>6}{'length':>8}{'weights':>12}{'keys, values':>14}{'logits':>12}{'sum':>12}"
    for row in memory(spec, options.torch_dtype, tuple(batches), fitting, rows):
        yield (
            f"  {row.batch:>6}{row.length:>8}{_bytes(row.weights):>12}{_bytes(row.kv):>14}"
            f"{_bytes(row.logits):>12}{_bytes(row.total):>12}"
        )


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"
