"""How much of a bare matrix product's speed the transformer's layers reach, without cache and head.

A layer's products are timed by themselves on inputs of the same shape, in turn with the layers that
contain them: norms, rotation, attention and whatever else a layer does is what is missing to 100 %.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm.bench.caches import SPEC, llada_8b
from dllm.bench.machine import Machine, check_device, settle
from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet
from dllm.forward.graphs import WORTH, Graphs
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
    """The layers over their bare products."""
    flops: float
    """Of the products, in one forward."""
    bytes: float
    """Of the layers' weights, which one forward reads."""


def sheet(machine: Machine) -> Sheet:
    return Sheet(
        "The layers against bare matrix products of the same shapes",
        [
            "All layers of a forward without cache and head, in turn with the products of their "
            "weights alone: what is missing to 100 % are norms, rotation, attention and the rest. "
            "16 layers of 512 on the host, LLaDA-8B's shape with random weights on a GPU, "
            "there also recorded and replayed (model.compile=graphs). The aim is 80 %. Weights: "
            "bytes of the weights that a forward reads, per second."
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
        for recorded, rows in itertools.product(
            (False, True) if device == "cuda" else (False,), ROWS
        ):
            layers, products = _layers(model, rows, recorded), _products(weights, rows)
            timing = alternate(layers, products, repeats)
            work = 2.0 * rows * elements, elements * dtype.itemsize
            yield Speed(recorded, rows, dtype, timing, *work)


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


def _products(weights: Sequence[Tensor], rows: int) -> Callable[[], None]:
    inputs = {
        width: torch.randn(rows, width, dtype=weights[0].dtype, device=weights[0].device)
        for width in {weight.shape[1] for weight in weights}
    }

    @torch.inference_mode()
    def run() -> None:
        for weight in weights:
            product(inputs[weight.shape[1]], weight)
        settle(weights[0].device.type)

    return run
