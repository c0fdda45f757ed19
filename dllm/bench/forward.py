"""How much of a bare matrix product's speed the transformer's layers reach, without cache and head.

A layer's products, those of queries with keys and of attention weights with values included, are
timed by themselves on inputs of the same shape, in turn with the layers that contain them: norms,
rotation, softmax and whatever else a layer does is what is missing to 100 %.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from dllm.bench.caches import SPEC, llada_8b
from dllm.bench.machine import Machine, check_device, settle
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet
from dllm.forward.graphs import WORTH, Graphs
from dllm.models.attention import attend, heads_pay
from dllm.models.linear import product
from dllm.models.loading import dummy_model
from dllm.models.spec import ModelSpec
from dllm.models.transformer import Transformer


ROWS = (32, 64, 384, 2048)


@dataclass(frozen=True)
class Speed:
    recorded: bool
    """Whether the layers are replayed (CUDA graphs)."""
    rows: int
    dtype: torch.dtype
    timing: Ratio
    """The layers over their bare products, attention's included."""
    flops: float
    """Of these products, in one forward."""
    bytes: float
    """Of the layers' weights, which one forward reads."""


def sheet(machine: Machine) -> Sheet:
    return Sheet(
        "The layers against bare matrix products of the same shapes",
        [
            "All layers of a forward without cache and head, in turn with their matrix products "
            "alone, by the fastest way that is used here: those with weights and, per head, of "
            "queries with keys and of attention weights with values (on a GPU by its own kernel, "
            "softmax included). What is missing to 100 % are norms, rotation and the rest, on the "
            "host softmax, too. In bfloat16 the layers compute attention in float32 or with "
            "float32 sums, and are compared with products that round to bfloat16. 16 layers of 512 "
            "on the host, LLaDA-8B's shape with random weights on a GPU, there also recorded and "
            "replayed (model.compile=graphs). The aim is 80 %. Weights: bytes of the weights that "
            "a forward reads, per second."
        ],
        {
            "% of the products' speed": "{:.0f}",
            "products, GFLOP/s": "{:.0f}",
            "weights, GB/s": "{:.1f}",
            "% of bandwidth": "{:.0f}",
            "% of product speed": "{:.0f}",
            "rows/s": "{:.0f}",
        },
        "% of the products' speed",
        _lines(machine),
    )


def _lines(machine: Machine) -> Iterator[Line]:
    for speed in measure(machine.device):
        t, name = speed.timing, str(speed.dtype).removeprefix("torch.")
        yield Line(
            f"{name}, {speed.rows} rows{', recorded' if speed.recorded else ''}",
            {
                "% of the products' speed": 100 / t.ratio,
                "products, GFLOP/s": speed.flops / t.reference / 1e9,
                "weights, GB/s": speed.bytes / t.ours / 1e9,
                "% of bandwidth": 100 * speed.bytes / t.ours / machine.bandwidth,
                "% of product speed": 100 * speed.flops / t.ours / machine.flops[speed.dtype],
                "rows/s": speed.rows / t.ours,
            },
            (100 / t.high, 100 / t.low),
        )


def spec_for(device: str) -> ModelSpec:
    """16 layers of 512 on the host, LLaDA-8B's shape on a GPU. Raises `ConfigError` where there is
    none."""
    check_device(device)
    return SPEC if device == "cpu" else llada_8b()


def measure(device: str = "cpu", repeats: int = 7) -> Iterator[Speed]:
    """float32 and bfloat16 on the host, bfloat16 on a GPU."""
    spec = spec_for(device)
    for dtype in (torch.float32, torch.bfloat16) if device == "cpu" else (torch.bfloat16,):
        model = dummy_model(spec, dtype, device)
        weights = [p for p in model.layers.parameters() if p.dim() == 2]
        elements = sum(weight.numel() for weight in weights)
        width = spec.n_layers * spec.n_heads * spec.head_dim
        for recorded, rows in itertools.product(
            (False, True) if device == "cuda" else (False,), ROWS
        ):
            layers, products = _layers(model, rows, recorded), _products(model, rows)
            timing = alternate(layers, products, repeats)
            flops = 2.0 * rows * (elements + 2 * rows * width)
            yield Speed(recorded, rows, dtype, timing, flops, elements * dtype.itemsize)


def _layers(model: Transformer, rows: int, recorded: bool) -> Callable[[], None]:
    tokens, graphs = torch.arange(2, 2 + rows, device=model.device)[None], Graphs()

    @torch.inference_mode()
    def run() -> None:
        if recorded:
            graphs.run("layers", [tokens], lambda inputs: model.hidden(inputs[0]))
        else:
            model.hidden(tokens)
        settle(model.device.type)

    # Recorded after a few forwards: before anything is timed.
    for _ in range(WORTH + 1 if recorded else 0):
        run()

    return run


def _products(model: Transformer, rows: int) -> Callable[[], None]:
    spec, kind = model.spec, {"dtype": model.dtype, "device": model.device}
    weights = [p for p in model.layers.parameters() if p.dim() == 2]
    inputs = {
        width: torch.randn(rows, width, **kind) for width in {weight.shape[1] for weight in weights}
    }
    # The queries that read the same keys are multiplied at once.
    together = spec.n_heads // spec.n_kv_heads * rows
    q = torch.randn(spec.n_kv_heads, together, spec.head_dim, **kind)
    k, v = (torch.randn(spec.n_kv_heads, rows, spec.head_dim, **kind) for _ in range(2))
    p = torch.randn(spec.n_kv_heads, together, rows, **kind)
    queries = torch.randn(1, spec.n_heads, rows, spec.head_dim, **kind)

    def attention() -> None:
        if heads_pay(q[None], k[None]):
            for head in range(spec.n_kv_heads):
                product(q[head], k[head])
                product(p[head], v[head].t())
        elif model.device.type == "cpu":
            torch.bmm(q, k.mT)
            torch.bmm(p, v)
        else:  # its kernels write no scores
            attend(queries, k[None], v[None], None, 1.0)

    @torch.inference_mode()
    def run() -> None:
        for weight in weights:
            product(inputs[weight.shape[1]], weight)
        for _ in range(spec.n_layers):
            attention()
        settle(model.device.type)

    return run
