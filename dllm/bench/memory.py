"""The most memory that decoding takes beyond the model: the engine under every cache, and the
public loops written down plainly.

Counted is every tensor's memory from its making to its end, not what an operation takes and gives
back inside itself. At LLaDA-8B's shape the same operations
run on tensors without memory, of which the sizes are known all the same.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dllm.bench.caches import llada_8b
from dllm.bench.naive import LOOPS, Cache, Kept, Loop, all_logits, decode, large, surest
from dllm.bench.sheet import Line, Sheet
from dllm.cache.policy import CachePolicy
from dllm.config import build, choices, compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.shape import shape_only
from dllm.models.sizes import sizes
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer
from dllm.step import scores
from dllm.step.canvas import Prompt


VOCABULARIES = (2_048, 32_000, 126_464)
PROMPT, GENERATION, BLOCK = 512, 256, 32
"""Of the canvas at LLaDA-8B's shape."""
PLAIN: dict[Cache, Loop] = {
    loop.cache: loop for name, loop in LOOPS.items() if name.startswith("Fast-dLLM")
}
"""The plain loops by their caches."""
MIB = 2**20


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations within it have made and that are still there, but the
    model's own."""

    def __init__(self, model: Module | None = None) -> None:
        super().__init__()
        self.now = self.peak = 0
        own = [] if model is None else [*model.parameters(), *model.buffers()]
        self._known = {tensor.untyped_storage()._cdata for tensor in own}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Iterable[Any] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name not in self._known:
            self._known.add(name)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, name, size)

    def _gone(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


def peak(call: Callable[[], object], model: Module | None = None) -> int:
    """Bytes at the highest."""
    with Live(model) as live:
        call()
    return live.peak


def sheet() -> Sheet:
    return Sheet(
        "Memory beyond the model",
        [
            "The most that is alive at a time while a sequence is decoded with threshold 0.9, "
            "beyond the model's weights; of it the key/value store. 8x512: measured, float32, "
            "random weights, 8 layers of 512, prompt 128, generation 64. LLaDA-8B's shape: "
            f"computed, bfloat16, the first step of a canvas of {PROMPT} + {GENERATION}, the "
            "forward's operations run on tensors without memory. The plain loop is the public one, "
            "which gives logits and probabilities of every row that it feeds.",
            "Not counted is what an operation takes and gives back inside itself. The aim: "
            "activations (all but the store) of at most an eighth of the plain loop's.",
        ],
        {
            "engine, MiB": "{:.1f}",
            "of it store, MiB": "{:.1f}",
            "plain loop, MiB": "{:.1f}",
            "activations, of the plain loop's": "{:.3f}",
        },
        "engine, MiB",
        _lines(),
    )


def _lines() -> Iterator[Line]:
    for vocabulary in VOCABULARIES:
        name = f"8x512, vocabulary {vocabulary:,}"
        yield from measured(name, *large(vocabulary))
    for cache in PLAIN:
        yield _line(f"LLaDA-8B's shape, cache={cache}", *computed(llada_8b(), cache))


def measured(name: str, model: Transformer, prompts: Sequence[Prompt]) -> Iterator[Line]:
    """A line per cache that goes with the model and plain threshold decoding."""
    slots = max(len(prompt.tokens) + prompt.gen_length for prompt in prompts)

    def ours(decoder: Decoder) -> None:
        list(decoder.decode(prompts))

    def plain(loop: Loop) -> None:
        for prompt in prompts:
            decode(model, prompt.tokens, prompt.gen_length, loop)

    for cache in choices("cache"):
        config = compose(["sampler=threshold", f"cache={cache}"])
        policy: CachePolicy = build(config.cache, "cache")
        decoder = Decoder(Predictor(model), build(config.sampler, "sampler"), policy)
        try:
            decoder.check(prompts)
        except ConfigError:
            continue
        yield _line(
            f"{name}, cache={cache}",
            peak(partial(ours, decoder), model),
            _store(model.spec, slots, model.dtype) if policy.stores else 0,
            peak(partial(plain, PLAIN[cache]), model) if cache in PLAIN else None,
        )


def _line(name: str, ours: int, store: int, plain: int | None) -> Line:
    values = {"engine, MiB": ours / MIB, "of it store, MiB": store / MIB}
    if plain is not None:
        values["plain loop, MiB"] = plain / MIB
        values["activations, of the plain loop's"] = (ours - store) / (plain - store)
    return Line(name, values)


def _store(spec: ModelSpec, slots: int, dtype: torch.dtype) -> int:
    return slots * sizes(spec).kv_values_per_position * dtype.itemsize


def computed(
    spec: ModelSpec, cache: Cache, dtype: torch.dtype = torch.bfloat16
) -> tuple[int, int, int]:
    """Bytes at the highest of a canvas's first step, the engine's and of it the store, and the
    plain loop's."""
    slots = PROMPT + GENERATION
    store = _store(spec, slots, dtype) if cache != "none" else 0
    shape = shape_only(spec)
    with FakeTensorMode(allow_non_fake_inputs=True):
        # On the host, as attention takes another way on the meta device.
        state = {k: torch.empty(t.shape, dtype=dtype) for k, t in shape.state_dict().items()}
        shape.load_state_dict(state, assign=True)
        model = shape.eval().requires_grad_(False)
        ours = peak(lambda: _first_step(model, cache, dtype), model)
        plain = peak(lambda: _first_plain_step(model, cache), model)
    # What a selection needs depends on its logits alone, which are small; it is not the most where
    # most rows are left, since many are scored in parts.
    selection = max(
        peak(partial(_selection, rows, spec.vocab_size, dtype)) for rows in range(1, BLOCK + 1)
    )
    return max(ours, store + selection), store, plain


@torch.inference_mode()
def _selection(rows: int, vocabulary: int, dtype: torch.dtype) -> None:
    scores.top_confidence(torch.zeros(1, rows, vocabulary, dtype=dtype), "float64")


@torch.inference_mode()
def _first_step(model: Transformer, cache: Cache, dtype: torch.dtype) -> None:
    """The refresh: every row is fed and stored, the block's are read."""
    slots = PROMPT + GENERATION
    store = KVStore(model.spec, 1, slots if cache != "none" else 0, dtype)

    def exchange(layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        store.keys[layer].copy_(k)
        store.values[layer].copy_(v)
        return store.keys[layer], store.values[layer]

    tokens = torch.zeros(1, slots, dtype=torch.int64)
    rows = torch.arange(PROMPT, PROMPT + BLOCK)[None]
    hidden = model.hidden(tokens, None, None, exchange if cache != "none" else None, rows=rows)
    model.logits(hidden)


@torch.inference_mode()
def _first_plain_step(model: Transformer, cache: Cache) -> None:
    slots = PROMPT + GENERATION
    kept = Kept(cache, PROMPT, PROMPT + BLOCK) if cache != "none" else None
    tokens = torch.zeros(1, slots, dtype=torch.int64)
    logits = all_logits(model, tokens, 0, slots, None if kept is None else kept.exchange)
    surest(logits, torch.float64)
