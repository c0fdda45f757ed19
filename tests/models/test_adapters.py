"""What every family must keep to when forwards feed some rows and a store stands for the
others."""

from typing import Any

import pytest
import torch
from tiny_checkpoints import CONFIGS, tiny_model

from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.config_reader import Overrides
from dllm.models.loading import spec_from_config
from dllm.models.masks import attention_mask
from dllm.models.transformer import Transformer
from dllm.step.plan import ForwardKind, Plan


LENGTH = 64  # whole blocks of every block-causal family
CLOSE = {"rtol": 0.0, "atol": 1e-4}  # float32
# A model whose block reads otherwise than what is decided is asked through its caches' plans.
MODELS = {name: tiny_model(name) for name in CONFIGS if name != "diffusion_gemma"}
FULL = [name for name, model in MODELS.items() if model.spec.attention == "full"]
BLOCKS = [name for name, model in MODELS.items() if model.spec.attention == "block_causal"]
CAUSAL = [name for name, model in MODELS.items() if model.spec.attention == "causal"]
SHIFTED = [name for name, model in MODELS.items() if model.spec.logit_shift]
SLOTS = torch.arange(LENGTH)[None]


def tokens(rows: int = 1) -> torch.Tensor:
    return torch.randint(5, 80, (rows, LENGTH), generator=torch.Generator().manual_seed(4))


def reference(model: Transformer, canvas: torch.Tensor) -> torch.Tensor:
    """Logits of every row under the model's own rule, without any store."""
    rule = attention_mask(model.spec, SLOTS[0], SLOTS[0])
    with torch.inference_mode():
        return model.logits(model.hidden(canvas, mask=rule))


def forward(
    model: Transformer, canvas: torch.Tensor, slots: torch.Tensor, store: KVStore, **changes: Any
) -> torch.Tensor:
    """Logits of the fed rows themselves: those of the positions that they predict."""
    shift = model.spec.logit_shift
    given: dict[str, Any] = {
        "kind": ForwardKind.STEP,
        "tokens": canvas.gather(1, slots.clamp(min=0)),
        "positions": slots.clamp(min=0),
        "slots": slots,
        "fed": (slots >= 0).sum(1).numpy(),
        "padded": bool((slots < 0).any()),
        "within": within(model, slots),
        "logits_for": torch.where(slots >= 0, slots + shift, -1),
    }
    prediction = Predictor(model).predict(Plan(**(given | changes)), store)
    assert prediction is not None
    return prediction.logits


def within(model: Transformer, slots: torch.Tensor) -> Any:
    if model.spec.attention == "full":
        return "full"
    rule = attention_mask(model.spec, slots, slots)
    assert rule is not None
    return rule


def before(slot: int, rows: int = 1) -> torch.Tensor:
    return SLOTS.lt(slot).expand(rows, -1)


def refreshed(model: Transformer, canvas: torch.Tensor) -> KVStore:
    store = KVStore(model.spec, len(canvas), LENGTH, torch.float32)
    forward(model, canvas, SLOTS.expand_as(canvas), store, write="all")
    return store


@pytest.mark.parametrize("name", MODELS)
def test_a_forward_without_a_store_is_the_model(name: str) -> None:
    model, canvas = MODELS[name], tokens(2)
    store = KVStore(model.spec, 2, 0, torch.float32)
    logits = forward(model, canvas, SLOTS.expand_as(canvas), store)
    torch.testing.assert_close(logits, reference(model, canvas), **CLOSE)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("write", ["none", "all"])
def test_unchanged_tokens_reproduce_their_logits(name: str, write: str) -> None:
    """Any rows under full attention; elsewhere a block or a row with what it may see."""
    model, canvas = MODELS[name], tokens()
    spec, store = model.spec, refreshed(model, canvas)
    subsets = {
        "full": [3, 7, 8, 12],
        "block_causal": range(LENGTH // 2, LENGTH),
        "causal": range(9, 11),
    }
    subset = list(subsets[spec.attention])
    visible = before(LENGTH if spec.attention == "full" else subset[0])
    logits = forward(model, canvas, torch.tensor([subset]), store, visible=visible, write=write)
    torch.testing.assert_close(logits, reference(model, canvas)[:, subset], **CLOSE)


@pytest.mark.parametrize("name", FULL)
def test_rows_in_another_physical_order_are_the_same_rows(name: str) -> None:
    model, canvas = MODELS[name], tokens()
    store = refreshed(model, canvas)
    order = torch.tensor([[9, 2, 14, 5]])
    logits = forward(model, canvas, order, store, visible=before(LENGTH))
    torch.testing.assert_close(logits, reference(model, canvas)[:, order[0]], **CLOSE)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_after_block_is_the_block_causal_model(name: str) -> None:
    model, canvas = MODELS[name], tokens()
    size = model.spec.block_size or LENGTH
    store = KVStore(model.spec, 1, LENGTH, torch.float32)
    rows = [
        forward(
            model, canvas, SLOTS[:, start : start + size], store, visible=before(start), write="all"
        )
        for start in range(0, LENGTH, size)
    ]
    torch.testing.assert_close(torch.cat(rows, dim=1), reference(model, canvas), **CLOSE)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_was_not_committed_shows(name: str) -> None:
    """Keys and values of the last denoising step, when a position was still masked, won't do."""
    model, canvas = MODELS[name], tokens()
    half = LENGTH // 2
    masked = canvas.clone()
    masked[0, half - 2] = model.spec.mask_id
    last = SLOTS[:, half:]
    found = []
    for committed in (True, False):
        store = KVStore(model.spec, 1, LENGTH, torch.float32)
        given = canvas if committed else masked
        forward(model, given, SLOTS[:, :half], store, write="all")
        found.append(forward(model, canvas, last, store, visible=before(half)))
    torch.testing.assert_close(found[0], reference(model, canvas)[:, half:], **CLOSE)
    assert (found[1] - found[0]).abs().max() > 1e-2


@pytest.mark.parametrize("name", CAUSAL)
def test_committed_rows_are_those_of_a_causal_prefill(name: str) -> None:
    """Filled rows first, then masks: what is kept of the leading run equals a plain prefill."""
    model, canvas = MODELS[name], tokens()
    plain = refreshed(model, canvas)
    store = KVStore(model.spec, 1, LENGTH, torch.float32)
    forward(model, canvas, SLOTS[:, :8], store, write="all")
    masked = canvas.clone()
    masked[0, [10, 12]] = 0 if model.spec.mask_id < 0 else model.spec.mask_id
    fed = torch.tensor([[8, 9, 11, 10, 12]])  # 11 is filled behind a hole
    forward(model, masked, fed, store, visible=before(8), within="causal", write=fed < 10)
    assert store.valid[0].tolist() == [True] * 10 + [False] * (LENGTH - 10)
    for layer in range(model.spec.n_layers):
        for ours, theirs in ((store.keys, plain.keys), (store.values, plain.values)):
            torch.testing.assert_close(ours[layer][:, :, :10], theirs[layer][:, :, :10], **CLOSE)


@pytest.mark.parametrize("name", SHIFTED)
def test_a_prediction_whose_row_is_missing_is_not_valid(name: str) -> None:
    model, canvas = MODELS[name], tokens()
    store = refreshed(model, canvas)
    fed = torch.tensor([[8, 9]])
    plan = Plan(
        ForwardKind.STEP,
        canvas.gather(1, fed),
        fed,
        fed,
        fed.new_tensor([2]).numpy(),
        False,
        visible=before(8),
        within=within(model, fed),
        logits_for=torch.tensor([[8, 9, 10]]),
    )
    prediction = Predictor(model).predict(plan, store)
    assert prediction is not None and prediction.valid is not None
    assert prediction.valid.tolist() == [[False, True, True]]


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_neighbours_change_nothing(name: str) -> None:
    model, canvas = MODELS[name], tokens(2)
    store = refreshed(model, canvas[:1])
    alone = forward(model, canvas[:1], SLOTS[:, 8:12], store, visible=before(8))
    slots = torch.tensor([[8, 9, 10, 11, -1, -1], [8, 9, 10, 11, 12, 13]])
    both = forward(model, canvas, slots, refreshed(model, canvas), visible=before(8, 2))
    torch.testing.assert_close(both[:1, :4], alone, **CLOSE)


def test_only_causal_models_have_next_token_predictions_to_choose() -> None:
    spec = spec_from_config(CONFIGS["wedlm"], Overrides(logit_shift=1))
    assert spec.logit_shift == 1
    for name, shift in (("llada", 1), ("wedlm", 2)):
        with pytest.raises(ConfigError, match=rf"model\.logit_shift={shift} is for causal models"):
            spec_from_config(CONFIGS[name], Overrides(logit_shift=shift))
