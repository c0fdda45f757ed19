"""What a forward does not compute: rows that nobody asks for, and padding."""

from dataclasses import replace

import numpy as np
import torch

from dllm.bench.caches import SPEC
from dllm.forward.predictor import Predictor
from dllm.models.loading import dummy_model
from dllm.models.transformer import Transformer
from dllm.step.plan import ForwardKind, Plan


MODEL = dummy_model(
    replace(
        SPEC, vocab_size=40, d_model=16, n_layers=3, n_heads=2, n_kv_heads=2, head_dim=8, d_ff=24
    )
)


def ragged() -> Plan:
    """Sequences of nine and of four tokens; three and one of their predictions are wanted."""
    slots = torch.arange(9).repeat(2, 1)
    slots[1, 4:] = -1
    return Plan(
        kind=ForwardKind.STEP,
        tokens=torch.arange(18).view(2, 9) + 2,
        positions=slots.clamp(min=0),
        slots=slots,
        fed=np.array([9, 4]),
        padded=True,
        logits_for=torch.tensor([[2, 5, 8], [3, -1, -1]]),
    )


def counted(model: Transformer, plan: Plan) -> tuple[list[int], list[int]]:
    """Rows that each layer's feed-forward and the head were given."""
    layers: list[int] = []
    head: list[int] = []
    assert model.head is not None
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda _, x: layers.append(x[0].numel() // 16))  # type: ignore[union-attr]
        for layer in model.layers
    ]
    hooks.append(model.head.register_forward_pre_hook(lambda _, x: head.append(x[0].numel() // 16)))
    Predictor(model).predict(plan, None)
    for hook in hooks:
        hook.remove()
    return layers, head


def test_padding_passes_no_feed_forward_and_the_last_layer_only_what_is_wanted() -> None:
    assert counted(MODEL, ragged()) == ([13, 13, 6], [4])


def test_a_forward_that_predicts_nothing_ends_with_the_last_keys() -> None:
    assert counted(MODEL, replace(ragged(), logits_for=None)) == ([13, 13, 0], [])


def test_the_predictions_are_those_of_each_sequence_alone() -> None:
    plan = ragged()
    prediction = Predictor(MODEL).predict(plan, None)
    assert prediction is not None and prediction.valid is not None
    assert prediction.valid.tolist() == [[True] * 3, [True, False, False]]
    assert prediction.logits[~prediction.valid].isnan().all()
    for row, (length, wanted) in enumerate(((9, [2, 5, 8]), (4, [3]))):
        alone = MODEL.logits(MODEL.hidden(plan.tokens[row : row + 1, :length]))[0, wanted]
        found = prediction.logits[row][prediction.valid[row]]
        torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)
