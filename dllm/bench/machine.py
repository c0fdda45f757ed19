"""What the machine itself reaches, measured in the same run as what is compared with it."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dllm.bench.ratio import seconds
from dllm.errors import ConfigError
from dllm.models.linear import product
from dllm.runs.environment import describe


WIDTH = {"cpu": 1536, "cuda": 8192}
"""Of the square matrices whose product is timed."""
COPIED = {"cpu": 2**27, "cuda": 2**31}
"""Bytes of the tensor that is copied: more than any cache holds."""


@dataclass(frozen=True)
class Machine:
    """Limits of one device in this process, with this number of threads."""

    device: str
    flops: Mapping[torch.dtype, float]
    """Operations per second of a large product with a weight, as the layers compute it; two per
    multiplication."""
    bandwidth: float
    """Bytes per second that a copy reads and writes."""
    load: float | None
    """Processes that wanted a core, on average over the minute before; None where not known."""

    def facts(self) -> dict[str, Any]:
        """What stands beside every figure."""
        environment = describe(self.device)
        return {
            "commit": environment["commit"],
            "device": f"{self.device} ({_processor(self.device)})",
            "cores": os.cpu_count(),
            "threads": environment["threads"],
            "torch": environment["torch"],
            "product GFLOP/s": {
                str(dtype).removeprefix("torch."): round(flops / 1e9, 1)
                for dtype, flops in self.flops.items()
            },
            "copy GB/s": round(self.bandwidth / 1e9, 1),
            "load before": self.load,
        }


def check_device(device: str) -> None:
    """Raises `ConfigError` for one that is not there."""
    if device != "cpu" and (device != "cuda" or not torch.cuda.is_available()):
        raise ConfigError(f"--device={device}: no such device here; cpu, or cuda with a GPU")


def measure(device: str = "cpu", repeats: int = 5) -> Machine:
    """The fastest of some repetitions. Raises `ConfigError` for a device that is not there."""
    check_device(device)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    width, flops = WIDTH[device], {}
    for dtype in (torch.float32, torch.bfloat16):
        # Drawn: a GPU, bound by its power, computes faster with equal numbers.
        generator = torch.Generator(device).manual_seed(0)
        square = torch.randn(width, width, dtype=dtype, device=device, generator=generator)
        flops[dtype] = 2.0 * width**3 / _fastest(partial(product, square, square), device, repeats)
    source = torch.ones(COPIED[device] // 4, device=device)
    target = torch.empty_like(source)
    copied = _fastest(lambda: target.copy_(source), device, repeats)
    return Machine(device, flops, 2 * COPIED[device] / copied, load)


def settle(device: str) -> None:
    """Waits until a GPU has computed what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def waiting(call: Callable[[], object], device: str) -> Callable[[], object]:
    """The call up to where its results are there."""

    def wait() -> object:
        found = call()
        settle(device)
        return found

    return wait


def forget_peak(device: str) -> None:
    """From here on `peak` counts anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> float | None:
    """The most bytes that torch held at once on a GPU; None on the host, which is not asked."""
    return float(torch.cuda.max_memory_allocated()) if device == "cuda" else None


@torch.inference_mode()
def _fastest(call: Callable[[], object], device: str, repeats: int) -> float:
    once = waiting(call, device)
    once()
    return min(seconds(once) for _ in range(repeats))


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
