"""No cache: what the rows of a whole forward see."""

import torch
from tiny_decoding import NOISE, canvas_of

from dllm.cache.none import NoCache
from dllm.step.plan import Request, pad_positions


def test_a_block_sees_what_is_decided_and_all_of_itself() -> None:
    """Decided positions see those before them; nothing behind the block is fed, and padding sees
    something, too."""
    canvas = canvas_of([9, 9, 0, 0, 0, 0], [0, 0, 0, 0])
    canvas.enter_block(0, 5, 7)
    canvas.enter_block(1, 3, 5)
    policy = NoCache()
    policy.begin(NOISE)
    wanted = canvas.masked() & canvas.in_block()
    (plan,) = policy.plan(canvas, Request(pad_positions(wanted)), None)
    assert plan.slots.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, -1, -1]]
    assert plan.fed.tolist() == [7, 5]
    assert isinstance(plan.within, torch.Tensor) and plan.block is not None
    for row, (start, end) in enumerate(((5, 7), (3, 5))):
        seen = [keys[:end].nonzero().flatten().tolist() for keys in plan.within[row, :end]]
        assert seen == [list(range(q + 1 if q < start else end)) for q in range(end)]
        assert plan.block[row].nonzero().flatten().tolist() == list(range(start, end))
    assert plan.within[1, 5:, :5].any(dim=-1).all()
