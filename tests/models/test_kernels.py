"""One kernel gives what torch's operations give: on a GPU, and in Triton's interpreter."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dllm.bench.caches import SPEC
from dllm.models import fused, transformer
from dllm.models.swiglu import SwiGLU
from dllm.models.transformer import RMSNorm, rotate


@pytest.fixture(scope="module", params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def compiled(request: pytest.FixtureRequest) -> Iterator[tuple[ModuleType, str]]:
    """The module, and the device that it computes on."""
    if request.param == "interpreter":  # told before Triton's own functions are made
        if "triton" in sys.modules and "TRITON_INTERPRET" not in os.environ:
            pytest.skip("Triton compiles in this process already: run this file by itself")
        os.environ["TRITON_INTERPRET"] = "1"
    pytest.importorskip("triton", reason="kernels are Triton's, which is not installed")
    spec = importlib.util.find_spec("dllm.models.kernels")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module, "cpu" if request.param == "interpreter" else "cuda"
    os.environ.pop("TRITON_INTERPRET", None)


@pytest.fixture
def kernels(compiled: tuple[ModuleType, str]) -> Iterator[tuple[ModuleType, str]]:
    with torch.inference_mode():
        yield compiled


def drawn(*shape: int, dtype: torch.dtype = torch.float32, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator)).to(device, dtype)


def dtypes(device: str) -> tuple[torch.dtype, ...]:
    # The interpreter does not round to bfloat16 as a GPU does.
    half = torch.float16 if device == "cpu" else torch.bfloat16
    return torch.float32, half


def near(found: Tensor, right: Tensor) -> None:
    """The last bit may differ."""
    assert found.dtype == right.dtype and found.shape == right.shape
    last = torch.finfo(right.dtype).eps
    torch.testing.assert_close(found, right, rtol=4 * last, atol=4 * last)


@pytest.mark.parametrize("shape", [(2, 5, 96), (1, 3, 4, 16), (7, 576)])
@pytest.mark.parametrize("wide", [False, True])
def test_norm(kernels: tuple[ModuleType, str], shape: tuple[int, ...], wide: bool) -> None:
    module, device = kernels
    for dtype in dtypes(device):
        x = drawn(*shape, dtype=dtype, device=device)
        weight = drawn(shape[-1], dtype=dtype, device=device, seed=1)
        if wide:
            right = F.rms_norm(x.float(), weight.shape, weight.float(), 1e-5).to(dtype)
        else:
            right = F.rms_norm(x, weight.shape, None, 1e-5) * weight
        near(module.normed(x, weight, 1e-5, wide), right)


@pytest.mark.parametrize(("heads", "width", "turned"), [(3, 16, 16), (4, 24, 12), (1, 8, 8)])
@pytest.mark.parametrize("tables", [1, 2])
@pytest.mark.parametrize("wide", [False, True])
def test_rotation(
    kernels: tuple[ModuleType, str],
    heads: int,
    width: int,
    turned: int,
    tables: int,
    wide: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, device = kernels
    monkeypatch.setattr(transformer, "kernels_for", lambda x: None)
    cos, sin = (drawn(tables, 1, 5, turned, device=device, seed=seed) for seed in (1, 2))
    for dtype in dtypes(device):
        x = drawn(2, 5, heads, width, dtype=dtype, device=device).transpose(1, 2)
        assert torch.equal(module.rotated(x, cos, sin, wide), rotate(x, cos, sin, wide))
        strided = x.transpose(2, 3).contiguous().transpose(2, 3)
        assert torch.equal(module.rotated(strided, cos, sin, wide), rotate(x, cos, sin, wide))


def test_gate(kernels: tuple[ModuleType, str]) -> None:
    module, device = kernels
    for dtype in dtypes(device):
        gate, up = (drawn(3, 1000, dtype=dtype, device=device, seed=seed) for seed in (1, 2))
        near(module.gated(gate, up), F.silu(gate) * up)
        near(module.gated(gate.t(), up.t()), (F.silu(gate) * up).t())


def test_what_calls_them(kernels: tuple[ModuleType, str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, device = kernels
    called: list[str] = []

    class Noted:
        def __getattr__(self, name: str) -> object:
            called.append(name)
            return getattr(module, name)

    norm, mlp = RMSNorm(32, SPEC).to(device), SwiGLU(32, 64).to(device)
    x = drawn(2, 5, 32, device=device)
    cos, sin = drawn(1, 1, 5, 32, device=device), drawn(1, 1, 5, 32, device=device, seed=1)
    right = norm(x), mlp(x), rotate(x[:, None], cos, sin, True)
    for place in ("dllm.models.transformer", "dllm.models.swiglu"):
        monkeypatch.setattr(f"{place}.kernels_for", lambda x: Noted())
    for one, two in zip((norm(x), mlp(x), rotate(x[:, None], cos, sin, True)), right, strict=True):
        near(one, two)
    assert called == ["normed", "gated", "rotated"]


def test_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_kernels", lambda device: fused)

    class Rows:
        device = "cuda"

        def __init__(self, count: int, is_cuda: bool = True, dtype: torch.dtype = torch.float16):
            self.count, self.is_cuda, self.dtype = count, is_cuda, dtype

        def numel(self) -> int:
            return self.count

    few, many, here = Rows(fused.WORTH - 1), Rows(fused.WORTH), Rows(fused.WORTH, is_cuda=False)
    with torch.inference_mode():
        assert [fused.kernels_for(x) for x in (few, many, here)] == [None, fused, None]  # type: ignore[arg-type]
        with fused.recorded():
            assert [fused.kernels_for(x) for x in (few, many, here)] == [fused, fused, None]  # type: ignore[arg-type]
        assert fused.kernels_for(few) is None  # type: ignore[arg-type]
        exact = Rows(fused.WORTH, dtype=torch.float64)
        assert fused.kernels_for(exact) is None  # type: ignore[arg-type]
    with fused.recorded():
        assert fused.kernels_for(many) is None  # type: ignore[arg-type]


HERE = torch.device("cpu")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """As where Triton and a compiler are; what is imported."""
    fused._kernels.cache_clear()
    kernels = SimpleNamespace(gated=lambda gate, up: gate)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    monkeypatch.setattr(fused.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(fused, "import_module", lambda name: kernels)
    yield kernels
    fused._kernels.cache_clear()


def test_where_they_can_be_compiled(installed: SimpleNamespace) -> None:
    assert fused._kernels(HERE) is installed


@pytest.mark.parametrize("lacking", ["find_spec", "shutil.which"])
def test_where_they_cannot(
    lacking: str, installed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"dllm.models.fused.{lacking}", lambda name: None)
    assert fused._kernels(HERE) is None


def test_a_compiler_that_fails_is_told_once(installed: SimpleNamespace) -> None:
    def failing(gate: Tensor, up: Tensor) -> Tensor:
        raise RuntimeError("no ptxas\nand much more")

    installed.gated = failing
    with pytest.warns(
        UserWarning, match=r"torch's operations do its work: RuntimeError: no ptxas$"
    ):
        assert fused._kernels(HERE) is None
    assert fused._kernels(HERE) is None
