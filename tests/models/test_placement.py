"""Where parameters go; accelerate's hooks change no number."""

from pathlib import Path

import pytest
import torch
from tiny_checkpoints import tiny_model, write_checkpoint

from dllm.errors import ConfigError
from dllm.models.loading import load_model
from dllm.models.placement import Placing, place, unavailable
from dllm.models.transformer import Transformer


CPU = torch.device("cpu")
TOKENS = torch.arange(12)[None]


def logits(model: Transformer) -> torch.Tensor:
    return model.logits(model.hidden(TOKENS))


def test_one_device() -> None:
    placing = place(tiny_model("llada"), torch.float32, "cpu")
    assert placing.device_of("layers.1.attn.q.weight") == CPU
    assert placing.devices == {"": CPU}


@pytest.mark.parametrize("device", ["meta", "cuda:99", "hpu", "gpu0", ""])
def test_a_device_that_computes_nothing_here(device: str) -> None:
    said = unavailable(device)
    assert said is not None and "\n" not in said
    assert said.startswith(f"model.device={device} is not available (")
    assert unavailable("cpu") is None and unavailable("auto") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto would choose the GPU")
def test_auto_without_a_gpu_is_the_host(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, "llada2")
    read = load_model(tmp_path, device="auto")
    assert read.device == CPU
    assert torch.equal(logits(read), logits(written))


def test_auto_that_does_not_fit() -> None:
    with torch.device("meta"):
        model = Transformer(tiny_model("llada").spec)
    with pytest.raises(ConfigError, match=r"model\.device=auto: the model does not fit"):
        place(model, torch.float32, "auto", max_memory={"cpu": 50_000})


@pytest.mark.parametrize("family", ["llada", "llada2", "wedlm"])
def test_hooks_change_no_number(family: str) -> None:
    """Every module's weights are fetched for its forward, as for modules kept on the host."""
    expected = logits(tiny_model(family))
    placing = Placing(dict.fromkeys(["embed", "layers.0", "layers.1", "norm", "head"], CPU))
    assert placing.device_of("layers.1.mlp.down.weight") == CPU
    model = placing.dispatch(tiny_model(family))
    assert model.layers[0].attn.q.weight.is_meta
    assert torch.equal(logits(model), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llada", "llada2", "fast_dllm_v2"])
def test_gpu_and_host_together(family: str, tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, family)
    expected = logits(written)
    assert torch.allclose(logits(load_model(tmp_path, device="cuda").cpu()), expected, atol=1e-4)
    with torch.device("meta"):
        empty = Transformer(written.spec)
    size = sum(p.numel() * 4 for p in written.parameters())
    placing = place(empty, torch.float32, "auto", max_memory={0: size * 2 // 3, "cpu": size * 2})
    assert len(set(placing.devices.values())) == 2
    for name, parameter in list(written.named_parameters()):
        parameter.data = parameter.data.to(placing.device_of(name))
    spread = placing.dispatch(written)
    assert torch.allclose(logits(spread).cpu(), expected, atol=1e-4)
