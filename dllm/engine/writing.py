"""What follows from a decision: the canvas, the sampler's memory, the block, the end of the answer.

The loop writes with these functions; a constraint is shown what they would do, on a copy.
"""

from collections.abc import Callable

from dllm.engine.resizing import end_answer, fill_at_once, resize
from dllm.engine.row import Row
from dllm.step.canvas import Canvas
from dllm.step.decision import HostDecision, RowChanges
from dllm.step.eos import EosPolicy, end_of_answer
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState


def write(sampler: Sampler, canvas: Canvas, state: SamplerState, decision: HostDecision) -> None:
    """Tokens and memory of one decision of the whole batch."""
    canvas.apply(decision)
    for name, value in decision.updates.items():
        state[name] = value
    sampler.committed(canvas, decision, state)


def reshape(eos: EosPolicy, canvas: Canvas, b: int, row: Row, changes: RowChanges) -> None:
    """What one decision inserts, cuts off, adds and fills, before it is seen whether the block is
    complete."""
    resize(canvas, b, row, changes)
    if eos is EosPolicy.FILL_AT_ONCE and not changes.open_end:
        fill_at_once(canvas, b, row)


def next_block(
    sampler: Sampler, canvas: Canvas, state: SamplerState, b: int, close: Callable[[], None]
) -> bool:
    """Enters the next block that is not complete yet; False = there is none. `close` is called for
    every complete one in between."""
    while (bounds := sampler.region.next_block(canvas, b)) is not None:
        canvas.enter_block(b, *bounds)
        state.enter_block(b)
        if canvas.block_masks[b] or not sampler.block_done(canvas, b, state):
            return True
        close()
    return False


def go_on(
    sampler: Sampler,
    eos: EosPolicy,
    canvas: Canvas,
    state: SamplerState,
    b: int,
    row: Row,
    changes: RowChanges,
    done: bool,
    close: Callable[[], None],
) -> None:
    """Ends the answer or the block (`done`: it is complete) of one sequence after a decision."""
    end = None if changes.open_end else end_of_answer(canvas, b, eos, done)
    if end is not None:
        end_answer(canvas, b, row, end, eos)
    elif changes.stop:
        row.finished = True
    elif done:
        row.finished = not next_block(sampler, canvas, state, b, close)
    limit = sampler.max_steps(int(canvas.limit[b] - canvas.prompt_length[b]))
    bound = (int(canvas.limit[b]) if limit is None else limit) + row.reopened
    if not row.finished and canvas.step[b] >= bound:
        row.finished = True
        if limit is None:  # only a constraint can bring the progress guard to a halt
            row.fail(f"no token is allowed for {canvas.masked()[b].sum()} positions")
