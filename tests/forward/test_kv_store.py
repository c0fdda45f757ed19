"""The contract of forwards and the store, through the predictor."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_decoding import SPEC, random_model

from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.plan import ForwardKind, Plan


LENGTH = 10
CLOSE = {"rtol": 0.0, "atol": 1e-4}  # float32
MODEL = random_model()


def tokens(rows: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, SPEC.vocab_size, (rows, LENGTH), generator=generator)


def reference(canvas: torch.Tensor) -> torch.Tensor:
    """Logits of every position of complete canvases, without any store."""
    positions = torch.arange(canvas.shape[1]).expand_as(canvas)
    with torch.inference_mode():
        return MODEL.logits(MODEL.hidden(canvas, positions, None, None))


def plan(canvas: torch.Tensor, slots: torch.Tensor, **changes: Any) -> Plan:
    """A forward of the given slots that wants their own predictions."""
    given: dict[str, Any] = {
        "kind": ForwardKind.STEP,
        "tokens": canvas.gather(1, slots.clamp(min=0)),
        "positions": slots.clamp(min=0),
        "slots": slots,
        "fed": (slots >= 0).sum(1).numpy(),
        "padded": bool((slots < 0).any()),
        "logits_for": slots,
    }
    return Plan(**(given | changes))


def predict(given: Plan, store: KVStore | None = None) -> torch.Tensor:
    prediction = Predictor(MODEL).predict(given, store)
    assert prediction is not None
    return prediction.logits


def refreshed(canvas: torch.Tensor) -> KVStore:
    store = KVStore(SPEC, len(canvas), LENGTH, torch.float32)
    everything = torch.arange(LENGTH).expand_as(canvas)
    predict(plan(canvas, everything, write="all"), store)
    return store


def everywhere(rows: int = 1) -> torch.Tensor:
    return torch.ones(rows, LENGTH, dtype=torch.bool)


def test_without_a_store_a_forward_is_the_model() -> None:
    canvas = tokens(2)
    everything = torch.arange(LENGTH).expand(2, LENGTH)
    torch.testing.assert_close(predict(plan(canvas, everything)), reference(canvas), **CLOSE)


def test_only_the_wanted_rows_are_predicted_in_their_order() -> None:
    canvas = tokens()
    wanted = torch.tensor([[7, 2, 5]])
    logits = predict(plan(canvas, torch.arange(LENGTH)[None], logits_for=wanted))
    torch.testing.assert_close(logits, reference(canvas)[:, [7, 2, 5]], **CLOSE)


@pytest.mark.parametrize("subset", [[4], [0, 9], [3, 4, 5, 6], list(range(LENGTH))])
def test_unchanged_tokens_reproduce_their_logits(subset: list[int]) -> None:
    canvas = tokens()
    store = refreshed(canvas)
    for write in ("none", "all"):
        given = plan(canvas, torch.tensor([subset]), visible=everywhere(), write=write)
        torch.testing.assert_close(predict(given, store), reference(canvas)[:, subset], **CLOSE)


def test_a_changed_token_shows_only_where_it_was_computed_again() -> None:
    canvas = tokens()
    store = refreshed(canvas)
    changed = canvas.clone()
    changed[0, 4] = (canvas[0, 4] + 1) % SPEC.vocab_size
    other = torch.tensor([[7]])
    stale = predict(plan(changed, other, visible=everywhere()), store)
    torch.testing.assert_close(stale, reference(canvas)[:, [7]], **CLOSE)
    assert store.token[0, 4] != changed[0, 4]
    predict(plan(changed, torch.tensor([[4]]), visible=everywhere(), write="all"), store)
    assert store.token[0, 4] == changed[0, 4]
    fresh = predict(plan(changed, other, visible=everywhere()), store)
    assert not torch.allclose(fresh, stale, atol=1e-3)


def test_a_fed_row_replaces_its_slot_in_any_physical_order() -> None:
    canvas = tokens()
    store = refreshed(canvas)
    order = [6, 2, 9, 3]
    straight = predict(plan(canvas, torch.tensor([sorted(order)]), visible=everywhere()), store)
    permuted = predict(plan(canvas, torch.tensor([order]), visible=everywhere()), store)
    back = [order.index(slot) for slot in sorted(order)]
    torch.testing.assert_close(permuted[:, back], straight, **CLOSE)
    # Attended once, not twice: feeding all of them leaves nothing of the store to see.
    everything = torch.arange(LENGTH)[None]
    torch.testing.assert_close(
        predict(plan(canvas, everything, visible=everywhere()), store), reference(canvas), **CLOSE
    )


def test_padding_rows_and_other_samples_change_nothing() -> None:
    canvas = tokens(2)
    subset = torch.tensor([[3, 4, 5]])
    alone = predict(plan(canvas[:1], subset, visible=everywhere()), refreshed(canvas[:1]))
    store = refreshed(canvas)
    padded = torch.tensor([[3, 4, 5, -1, -1], [1, 2, 6, 7, 8]])
    both = predict(plan(canvas, padded, visible=everywhere(2), write="all"), store)
    torch.testing.assert_close(both[:1, :3], alone, **CLOSE)
    assert store.valid.all()


def test_padding_is_never_written() -> None:
    canvas = tokens()
    store = KVStore(SPEC, 1, LENGTH, torch.float32)
    predict(plan(canvas, torch.tensor([[2, -1, 5]]), write="all"), store)
    assert store.valid[0].nonzero().flatten().tolist() == [2, 5]
    assert store.token[0, [2, 5]].tolist() == canvas[0, [2, 5]].tolist()
    assert (store.token[0, [0, 1, 3, 4]] == -1).all()


@pytest.mark.parametrize("write", ["none", "all"])
def test_sequences_that_are_no_neighbours_meet_their_own_slots(write: str) -> None:
    canvas = tokens(3)
    store, own = refreshed(canvas), np.array([0, 2])
    subset = torch.tensor([[3, 4], [5, 8]])
    changed = (canvas + 1) % SPEC.vocab_size
    for fed in (canvas, changed):
        given = plan(fed[own], subset, visible=everywhere(2), write=write)
        both = predict(given, store.part(own))
        for entry, row in enumerate(own):
            alone = plan(fed[[row]], subset[[entry]], visible=everywhere(), write=write)
            other = refreshed(canvas[[row]])
            expected = predict(alone, other)
            torch.testing.assert_close(both[[entry]], expected, **CLOSE)
            assert store.token[row].equal(other.token[0])
            torch.testing.assert_close(store.keys[1][row], other.keys[1][0], **CLOSE)
    assert store.token[1].equal(canvas[1])


def test_rows_written_by_choice_and_seen_by_choice() -> None:
    canvas = tokens()
    store = KVStore(SPEC, 1, LENGTH, torch.float32)
    everything = torch.arange(LENGTH)[None]
    kept = everything < 4
    predict(plan(canvas, everything, write=kept), store)
    assert torch.equal(store.valid, kept)
    # Asking for all of them shows the valid ones only.
    rest = torch.arange(4, LENGTH)[None]
    shown = predict(plan(canvas, rest, visible=everywhere()), store)
    torch.testing.assert_close(shown, reference(canvas)[:, 4:], **CLOSE)
    hidden = predict(plan(canvas, rest, visible=torch.zeros(1, LENGTH, dtype=torch.bool)), store)
    assert not torch.allclose(hidden, shown, atol=1e-3)


def test_the_same_call_is_the_same_whether_it_writes() -> None:
    canvas = tokens()
    subset = torch.tensor([[2, 3]])
    results = [
        predict(plan(canvas, subset, visible=everywhere(), write=write), refreshed(canvas))
        for write in ("none", "all")
    ]
    torch.testing.assert_close(*results, **CLOSE)


def test_invalidated_slots_are_gone_and_sequences_come_and_go() -> None:
    canvas = tokens(2)
    store = refreshed(canvas)
    store.invalidate(torch.arange(LENGTH)[None] >= torch.tensor([[4], [LENGTH]]))
    assert store.valid.sum(1).tolist() == [4, LENGTH]
    store.keep([1])
    store.append()
    assert store.valid.sum(1).tolist() == [LENGTH, 0]
    subset = torch.tensor([[5], [5]])
    logits = predict(plan(canvas.flip(0), subset, visible=everywhere(2)), store)
    torch.testing.assert_close(logits[:1], reference(canvas)[1:, [5]], **CLOSE)
    store.hand_on(0)
    assert not store.valid.any()
    assert (store.token == -1).all()


def test_what_was_not_fed_is_not_valid() -> None:
    canvas = tokens()
    given = plan(canvas, torch.tensor([[2, 3]]), logits_for=torch.tensor([[3, 7, -1]]))
    prediction = Predictor(MODEL).predict(given, None)
    assert prediction is not None and prediction.valid is not None
    assert prediction.valid.tolist() == [[True, False, False]]


def test_a_forward_without_wishes_predicts_nothing_but_writes() -> None:
    canvas = tokens()
    store = KVStore(SPEC, 1, LENGTH, torch.float32)
    given = plan(canvas, torch.arange(LENGTH)[None], logits_for=None, write="all")
    assert Predictor(MODEL).predict(given, store) is None
    assert store.valid.all()


def test_each_layer_keeps_its_buffers_on_its_own_device() -> None:
    """`meta` stands for a second GPU: mixing devices fails there, too."""
    canvas = tokens(2)
    slots = torch.tensor([[2, 3], [4, -1]])
    for entries in (1, 2):
        store = KVStore(SPEC, entries, LENGTH, torch.float32, "cpu", ["cpu", "meta"])
        for visible in (None, everywhere(entries)):
            given = plan(canvas[:entries], slots[:entries], visible=visible, write="all")
            exchange = store.open(given).exchange
            assert exchange is not None
            for layer, device in enumerate(("cpu", "meta")):
                fresh = torch.zeros(entries, SPEC.n_kv_heads, 2, SPEC.head_dim, device=device)
                assert {seen.device.type for seen in exchange(layer, fresh, fresh)} == {device}
        store.keep([entries - 1])
        store.hand_on(0)
        assert [keys.device.type for keys in store.keys] == ["cpu", "meta"]
        assert not store.valid.any() and (store.token == -1).all()
        assert store.valid.device.type == "cpu"


def test_weights_kept_on_the_host_compute_where_the_embedding_lies() -> None:
    model = random_model()
    model.layers[1].to("meta")
    assert model.layer_devices == [torch.device("cpu")] * SPEC.n_layers
