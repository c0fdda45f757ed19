"""Low-rank adapters: what is trained is what is merged, and a damaged one is refused."""

import json
from pathlib import Path

import pytest
import torch

from dllm.errors import ConfigError
from dllm.models.adapter import Adapted, AdapterSpec, beside, merge, read_adapter, save_adapter
from dllm.models.hub import ADAPTERS, ModelOptions, checkpoint_folder, open_model, open_spec
from dllm.models.loading import load_model
from dllm.models.masks import attention_mask
from dllm.models.transformer import Transformer


SPEC = AdapterSpec(base="tiny", rank=3, scale=2.0, mask_id=2, block_size=4)
TOKENS = torch.tensor([[5, 9, 2, 7, 2, 2, 12, 3]])


def hidden(model: Transformer) -> torch.Tensor:
    slots = torch.arange(TOKENS.shape[1])
    return model.hidden(TOKENS, mask=attention_mask(model.spec, slots, slots))


def trained(base: Path) -> Adapted:
    """An adapter that has moved away from its start."""
    adapted = Adapted(load_model(base), SPEC, seed=0)
    generator = torch.Generator().manual_seed(1)
    for tensor in adapted.tensors().values():
        # What is stored in bfloat16 is then stored exactly.
        moved = tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
        tensor.data.copy_(moved.to(torch.bfloat16))
    return adapted


def test_before_training_the_weights_are_the_bases(tiny_llama: Path) -> None:
    base, adapted = load_model(tiny_llama), Adapted(load_model(tiny_llama), SPEC, seed=0)
    base.spec = SPEC.of(base.spec)
    assert not torch.allclose(hidden(adapted.base), hidden(base))  # the mask's embedding is new
    base.embed.weight.data[SPEC.mask_id] = base.embed.weight.data.mean(0)
    torch.testing.assert_close(hidden(adapted.base), hidden(base))


def test_only_the_adapter_is_learnt(tiny_llama: Path) -> None:
    adapted = trained(tiny_llama)
    adapted.logits(hidden(adapted.base)).logsumexp(-1).sum().backward()
    learnt = {id(tensor) for tensor in adapted.tensors().values()}
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == (id(parameter) in learnt), name
        assert (parameter.grad is not None) == (id(parameter) in learnt), name
    # q, k, v, o, gate, up and down of two layers, and the mask
    assert len(learnt) == 2 * 7 * 2 + 1


def test_merged_is_what_was_trained(tiny_llama: Path, tmp_path: Path) -> None:
    adapted = trained(tiny_llama)
    save_adapter(tmp_path, SPEC, adapted.tensors())
    assert read_adapter(tmp_path) == SPEC
    model = load_model(tiny_llama)
    before = model.logits(hidden(model))
    merge(model, tmp_path)
    assert model.spec == adapted.base.spec and model.spec.attention == "block_causal"
    found = model.logits(hidden(model))
    assert (found - before).abs().max() > 1
    torch.testing.assert_close(found, adapted.logits(hidden(adapted.base)), atol=1e-4, rtol=1e-4)


def test_beside_its_base_it_shares_the_weights(tiny_llama: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path, SPEC, trained(tiny_llama).tensors())
    base, merged = load_model(tiny_llama), load_model(tiny_llama)
    before = base.logits(hidden(base)).clone()
    merge(merged, tmp_path)
    model = beside(base, tmp_path)
    assert model.spec == merged.spec and base.spec != model.spec
    found, expected = model.logits(hidden(model)), merged.logits(hidden(merged))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(base.logits(hidden(base)), before)
    shared = {weight.data_ptr() for weight in model.parameters()}
    assert {weight.data_ptr() for weight in base.parameters()} <= shared


@pytest.fixture
def folders(tiny_llama: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Base and adapter."""
    save_adapter(tmp_path / "adapter", SPEC, trained(tiny_llama).tensors())
    return tiny_llama, tmp_path / "adapter"


def test_a_model_is_opened_with_its_adapter(folders: tuple[Path, Path]) -> None:
    base, adapter = map(str, folders)
    options = ModelOptions(name="mine", path=base, adapter=adapter)
    model, _ = open_model(options)
    assert (model.spec.mask_id, model.spec.block_size, model.spec.logit_shift) == (2, 4, 1)
    assert open_spec(options) == model.spec
    plain, _ = open_model(ModelOptions(name="mine", path=base))
    assert plain.spec.attention == "causal"
    assert not torch.equal(plain.layers[0].attn.q.weight, model.layers[0].attn.q.weight)  # type: ignore[union-attr]
    smaller = open_spec(ModelOptions(name="mine", path=base, adapter=adapter, block_size=2))
    assert smaller.block_size == 2


def test_an_adapter_of_another_model_is_refused() -> None:
    adapter = str(ADAPTERS / "smollm2-diffusion")
    options = ModelOptions(name="tiny-llada", adapter=adapter)
    with pytest.raises(ConfigError, match="was trained for smollm2, not for tiny-llada"):
        checkpoint_folder(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "adapter.json").unlink(), "holds no adapter.json"),
        (lambda folder: (folder / "adapter.json").write_text("{"), "is not valid"),
        (lambda folder: rewrite(folder, rank=2), "layers.0.attn.k.a has the shape"),
        (lambda folder: rewrite(folder, rank="3"), "adapter.rank='3' is not a whole number"),
        (lambda folder: rewrite(folder, rank=0), "must be >= 1"),
        (lambda folder: rewrite(folder, alpha=1), "is not valid"),
        (lambda folder: rewrite(folder, mask_id=999), "outside the vocabulary"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "holds no adapter.safetensors"),
        (lambda folder: (folder / "adapter.safetensors").write_bytes(b"x" * 40), "truncated"),
    ],
)
def test_a_damaged_adapter_is_refused_in_one_line(
    folders: tuple[Path, Path], change, message: str
) -> None:
    base, adapter = folders
    change(adapter)
    with pytest.raises(ConfigError, match=message) as refused:
        open_model(ModelOptions(name="mine", path=str(base), adapter=str(adapter)))
    assert "\n" not in str(refused.value)


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
