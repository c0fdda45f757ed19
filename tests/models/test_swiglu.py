"""The gated feed-forward holds no more of its inner states than it needs."""

import weakref

import torch

from dllm.models.swiglu import SwiGLU


def test_a_gate_is_gone_before_the_next_inner_state_is_made() -> None:
    mlp, made, alive = SwiGLU(4, 8), [], []
    mlp.gate.register_forward_hook(lambda module, given, out: made.append(weakref.ref(out)))
    mlp.up.register_forward_pre_hook(lambda module, given: alive.append(made[-1]() is not None))
    with torch.inference_mode():
        mlp(torch.ones(2, 4))
    assert alive == [False]
