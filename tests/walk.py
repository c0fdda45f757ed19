"""A cache policy before one sequence whose decisions are written down."""

from collections.abc import Sequence

import numpy as np
import torch
from tiny_decoding import SPEC, canvas_of

from dllm.config import build, compose
from dllm.forward.store import KVStore
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Canvas
from dllm.step.plan import Plan, Request, pad_positions


class Walk:
    """A policy before one sequence whose decisions are written down."""

    def __init__(self, *options: str, masks: int, spec: ModelSpec = SPEC):
        self.policy = build(compose(options).cache, "cache")
        self.policy.begin(spec)
        self.canvas: Canvas = canvas_of([0] * masks, prompt=(5, 6, 7))
        self.canvas.enter_block(0, 3, 3 + masks)
        self.store = KVStore(spec, 1, 3 + masks, torch.float32)

    def plan(self, wanted: Sequence[int] | None = None) -> Plan:
        return self.plans(wanted)[-1]

    def plans(self, wanted: Sequence[int] | None = None) -> list[Plan]:
        asked = self.canvas.masked()
        if wanted is not None:
            asked = np.zeros_like(asked)
            asked[0, list(wanted)] = True
        return self.policy.plan(self.canvas, Request(pad_positions(asked)), self.store)

    def decide(self, *positions: int) -> None:
        self.canvas.tokens[0, list(positions)] = 9
        self.canvas.step += 1
        self.canvas.step_in_block += 1


def rows(plan: Plan) -> list[int]:
    return plan.slots[0].tolist()


def seen(plan: Plan) -> list[int]:
    assert plan.visible is not None
    return plan.visible[0].nonzero().flatten().tolist()


def first(canvas: Canvas, count: int) -> list[int]:
    return canvas.masked()[0].nonzero()[0][:count].tolist()
