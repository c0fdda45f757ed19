"""Films with everything that a page can show, and with what nobody should be able to make it do."""

import random

from dllm.report.replay.film import Film, Words, frames_of, start_of
from dllm.step.plan import ForwardKind
from dllm.step.trace import Considered, Review, Step, Trace


MASK = 0
HOSTILE = (
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 2'>",
    "<!--<script>",
    "]]>\u2028\u2029${window.owned = 3}{{ 7 * 7 }}",
    "\"'`\\",
    "<a href='https://example.com/x'>",
)
PLAIN = ("<mask>", "<end>", "the", "cat", "sat", "on", "a", "mat\n", "\x1b[31m")
TEXTS = (*PLAIN, *HOSTILE)


class WrittenTokenizer:
    """Token i is TEXTS[i]."""

    def token(self, token_id: int) -> str | None:
        return TEXTS[token_id] if token_id < len(TEXTS) else None

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(TEXTS[i] for i in ids)


def eventful() -> Trace:
    """A trace in which everything happens."""
    kinds = ForwardKind
    steps = [
        Step(kinds.PREFILL, fed=3, block=0),
        Step(
            kinds.STEP,
            fed=8,
            block=0,
            opened=(0, 4),
            positions=[0, 2],
            tokens=[2, 4],
            scores=[0.9, 0.5],
            probabilities=[0.97, 0.55],
            marks={"anchors": [2]},
            tried=[(4, 2.0), (3, 5.25)],
            review=Review(checks=2, refused=[(1, 9)]),
            considered=Considered(
                [(0, [2, 9], [0.97, 0.01]), (1, [3, 10], [0.4, 0.3]), (2, [4, 3], [0.55, 0.4])],
                [[], [(1, 3)]],
                1,
            ),
        ),
        Step(
            kinds.REFRESH,
            fed=8,
            block=0,
            positions=[1],
            tokens=[9],
            scores=[0.1],
            probabilities=[0.1],
            remasked=[0],
            edits=[(2, 10)],
            forced=True,
            considered=Considered([(2, [10, 4], [0.8, 0.1])]),
        ),
        Step(
            kinds.STEP,
            fed=4,
            block=0,
            spans=[(0, 4)],
            positions=[0, 3],
            tokens=[2, 7],
            scores=[1.0, 1.0],
            probabilities=[0.99999, None],
            inserted=[(3, 2)],
        ),
        Step(
            kinds.STEP,
            fed=4,
            block=1,
            opened=(4, 8),
            spans=[(4, 8)],
            positions=[4],
            tokens=[1],
            scores=[0.5],
            probabilities=[0.5],
            length=9,
            fill=(5, 1),
        ),
        Step(kinds.COMMIT, fed=4, block=1, length=7),
    ]
    return Trace("eventful", 6, MASK, steps, 2)


def film_of(trace: Trace, title: str = "localleap") -> Film:
    words = Words(WrittenTokenizer())  # type: ignore[arg-type]
    frames = frames_of(trace, words)
    return Film(
        title=title,
        model="m",
        task="t",
        sample=trace.sample_id,
        prompt=f"Say it: {''.join(HOSTILE)}",
        answer="the cat",
        correct=True,
        length=trace.gen_length,
        words=words.texts,
        ends=words.numbers([1]),
        frames=frames,
        given=start_of(trace, words),
        alternatives=trace.alternatives,
    )


def long_trace(length: int = 2048, block: int = 32, seed: int = 0) -> Trace:
    """Blocks of which a forward commits one to six positions, with a window after each refresh."""
    chance = random.Random(seed)
    steps = []
    for start in range(0, length, block):
        left, first = list(range(start, start + block)), True
        while left:
            chosen = chance.sample(left, min(len(left), chance.choice([1, 1, 2, 3, 4, 6])))
            seen = [(at, [chance.randrange(2, 8), 2], [0.6, 0.2]) for at in left]
            left = [at for at in left if at not in chosen]
            steps.append(
                Step(
                    ForwardKind.REFRESH if first else ForwardKind.STEP,
                    fed=length if first else block,
                    block=start // block,
                    opened=(start, start + block) if first else None,
                    spans=[] if first else [(start, start + block)],
                    positions=chosen,
                    tokens=[chance.randrange(2, 8) for _ in chosen],
                    scores=[1.0] * len(chosen),
                    probabilities=[round(1 - 0.8 * chance.random() ** 3, 4) for _ in chosen],
                    considered=Considered(seen),
                )
            )
            first = False
    return Trace("long", length, MASK, steps, 2)
