"""End-of-answer policies: length, fill, trace and cost of a written-down answer."""

import pytest
from tiny_decoding import EOS, MASK, canvas_of, decode_written, sampler

from dllm.step.eos import EosPolicy, end_of_answer, first_eos


ANSWER = [5, 6, EOS, 7, 8, 9, 3, 4, 2, 2, 2, 2]
BLOCKWISE = {  # one forward per block of four
    EosPolicy.NONE: ((5, 6, EOS, 7, 8, 9, 3, 4, 2, 2, 2, 2), 3),
    EosPolicy.FILL_AFTER_BLOCK: ((5, 6, EOS, 7, *[EOS] * 8), 1),
    EosPolicy.FILL_AFTER_END_BLOCK: ((5, 6, EOS, 7, 8, 9, 3, 4, 2, 2, 2, 2), 3),
    EosPolicy.STOP_AFTER_BLOCK: ((5, 6, EOS, 7, *[MASK] * 8), 1),
    EosPolicy.KEEP_BLOCK: ((5, 6, EOS, 7), 1),
    EosPolicy.CUT_AFTER_BLOCK: ((5, 6, EOS), 1),
    EosPolicy.STOP_UNTIL_EOS: ((5, 6, EOS, *[EOS] * 9), 1),
    EosPolicy.FILL_AT_ONCE: ((5, 6, EOS, *[EOS] * 9), 1),
    EosPolicy.CUT: ((5, 6, EOS), 1),
}
SURE = [0.8, 0.7, 0.9, 0.6, *[0.5] * 8]
STEPWISE = {  # one token per forward: 2, 0, 1, 3, then the next block
    EosPolicy.NONE: 12,
    EosPolicy.FILL_AFTER_BLOCK: 4,
    EosPolicy.FILL_AFTER_END_BLOCK: 12,
    EosPolicy.STOP_AFTER_BLOCK: 4,
    EosPolicy.KEEP_BLOCK: 4,
    EosPolicy.CUT_AFTER_BLOCK: 4,
    EosPolicy.STOP_UNTIL_EOS: 3,
    EosPolicy.FILL_AT_ONCE: 3,
    EosPolicy.CUT: 3,
}


@pytest.mark.parametrize("policy", EosPolicy)
def test_a_block_at_a_time(policy: EosPolicy) -> None:
    outcome = decode_written(sampler("sampler=threshold"), ANSWER, eos=policy, record=True)
    tokens, forwards = BLOCKWISE[policy]
    assert outcome.tokens == tokens
    assert outcome.cost.nfe == forwards
    assert tuple(list(outcome.trace.replay())[-1]) == tokens


@pytest.mark.parametrize("policy", EosPolicy)
def test_a_token_at_a_time(policy: EosPolicy) -> None:
    rule = sampler("sampler=low_confidence")
    outcome = decode_written(rule, ANSWER, SURE, eos=policy, record=True)
    assert outcome.cost.nfe == STEPWISE[policy]
    tokens, _ = BLOCKWISE[policy]
    assert outcome.tokens == tokens
    replayed = list(outcome.trace.replay())
    assert tuple(replayed[-1]) == tokens
    assert len(replayed) == STEPWISE[policy]


@pytest.mark.parametrize("policy", EosPolicy)
def test_only_decisions_that_last_are_counted(policy: EosPolicy) -> None:
    outcome = decode_written(sampler("sampler=threshold"), ANSWER, eos=policy)
    expected = {
        EosPolicy.NONE: 12,
        EosPolicy.FILL_AFTER_END_BLOCK: 12,
        EosPolicy.CUT: 3,
        EosPolicy.CUT_AFTER_BLOCK: 3,
    }
    assert outcome.committed == expected.get(policy, 4)


def test_only_a_block_of_end_tokens_alone_ends_the_answer() -> None:
    answer = [5, 6, EOS, EOS, EOS, EOS, EOS, EOS, 7, 8, 9, 10]
    policy = EosPolicy.FILL_AFTER_END_BLOCK
    outcome = decode_written(sampler("sampler=threshold"), answer, eos=policy)
    assert outcome.tokens == (5, 6, *[EOS] * 10)
    assert outcome.cost.nfe == 2


@pytest.mark.parametrize("policy", [p for p in EosPolicy if p is not EosPolicy.NONE])
def test_an_answer_without_an_end_token_fills_the_canvas(policy: EosPolicy) -> None:
    answer = [5, 6, 7, 8, 9, 10, 11, 12]
    outcome = decode_written(sampler("sampler=threshold"), answer, eos=policy)
    assert outcome.tokens == tuple(answer)


def test_an_open_position_before_the_end_token_keeps_the_answer_open() -> None:
    canvas = canvas_of([5, MASK, EOS, 7], [5, 6, EOS, MASK], [5, 6, 7, MASK])
    for policy in (EosPolicy.STOP_UNTIL_EOS, EosPolicy.FILL_AT_ONCE, EosPolicy.CUT):
        ends = [end_of_answer(canvas, row, policy, block_done=False) for row in range(3)]
        assert ends == [None, 6, None]


def test_block_policies_wait_for_the_block_and_ignore_earlier_end_tokens() -> None:
    canvas = canvas_of([EOS, 5, 6, 7, 8, 9, 10, 11])
    canvas.enter_block(0, 3, 7)
    for policy in (EosPolicy.FILL_AFTER_BLOCK, EosPolicy.STOP_AFTER_BLOCK, EosPolicy.KEEP_BLOCK):
        assert end_of_answer(canvas, 0, policy, block_done=False) is None
        assert end_of_answer(canvas, 0, policy, block_done=True) == 7
    assert end_of_answer(canvas, 0, EosPolicy.CUT_AFTER_BLOCK, block_done=True) == 4
    canvas.enter_block(0, 7, 11)
    assert end_of_answer(canvas, 0, EosPolicy.FILL_AFTER_BLOCK, block_done=True) is None


def test_an_end_token_fills_the_rest_before_the_answer_is_complete() -> None:
    rule = sampler("sampler=low_confidence")
    outcome = decode_written(rule, ANSWER, SURE, eos=EosPolicy.FILL_AT_ONCE, record=True)
    after = [canvas.tolist() for canvas in outcome.trace.replay()]
    assert after[0] == [MASK, MASK, *[EOS] * 10]
    assert after[1] == [5, MASK, *[EOS] * 10]


def test_an_end_token_in_the_prompt_ends_nothing() -> None:
    canvas = canvas_of([5, 6, MASK, MASK], prompt=(EOS, 4, EOS))
    canvas.enter_block(0, 3, 7)
    for policy in EosPolicy:
        assert end_of_answer(canvas, 0, policy, block_done=True) is None


def test_an_end_token_of_the_prompt_in_a_shared_block_ends_nothing() -> None:
    """Blocks counted from position 0: the first one holds the prompt's tail."""
    canvas = canvas_of([5, 6, 7, 8, 9], prompt=(4, 4, EOS))
    for policy in EosPolicy:
        canvas.enter_block(0, 0, 4)
        assert end_of_answer(canvas, 0, policy, block_done=True) is None
    canvas = canvas_of([EOS, MASK, MASK, MASK, MASK], prompt=(4, 4, 4))
    canvas.enter_block(0, 0, 4)
    # The prompt's tokens do not make a block of end tokens alone another one.
    assert end_of_answer(canvas, 0, EosPolicy.FILL_AFTER_END_BLOCK, block_done=True) == 4


def test_any_of_several_end_tokens_counts() -> None:
    canvas = canvas_of([4, 9, 1, 8])
    assert first_eos(canvas.generated(0), (1, 9)) == 1
    assert first_eos(canvas.generated(0), (7,)) is None
