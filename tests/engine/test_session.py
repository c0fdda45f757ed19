"""A session: prompts come and go in memory that stays where it is."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from tiny_decoding import (
    EOS,
    MASK,
    SPEC,
    CountingPredictor,
    WrittenPredictor,
    decode,
    ragged_prompts,
    random_model,
    sampler,
)

from dllm.cache.none import NoCache
from dllm.config import build, compose
from dllm.engine.loop import Decoder
from dllm.engine.session import Session, Ticket
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome


RULE = sampler("sampler=threshold", "sampler.threshold=0.4")
CREDIT = sampler("sampler=threshold", "sampler.threshold=0.4", "sampler/logits_transform=credit")


def decoder(rule=RULE, cache: str = "none", **options) -> Decoder:
    policy = build(compose([f"cache={cache}"]).cache, "cache")
    return Decoder(Predictor(random_model()), rule, policy, **options)


def finished(session: Session) -> dict[Ticket, Outcome]:
    found = {}
    while session.busy:
        found |= session.step().finished
    return found


def test_a_session_decodes_what_a_decoder_does() -> None:
    session = Session(decoder(batch_size=3))
    tickets = [session.submit(prompt) for prompt in ragged_prompts()]
    assert tickets == list(range(9))
    found = finished(session)
    plain = decode(RULE, ragged_prompts())
    for ticket, prompt in zip(tickets, ragged_prompts(), strict=True):
        assert found[ticket].sample_id == prompt.sample_id
        assert found[ticket].tokens == plain[prompt.sample_id].tokens


def test_events_add_up_to_the_answers() -> None:
    """What is written, on masks, is the answer after the step; the last one is the outcome's."""
    session = Session(decoder(sampler("sampler=wino"), batch_size=4))
    answers = {session.submit(p): np.full(p.gen_length, MASK) for p in ragged_prompts()}
    while session.busy:
        events = session.step()
        assert 0 < len(events.written) <= 4
        for ticket, change in events.written:
            answers[ticket][list(change.positions)] = change.tokens
            assert (answers[ticket] == change.answer).all()
        for ticket, outcome in events.finished:
            assert tuple(answers[ticket].tolist()) == outcome.tokens
    assert session.step().written == ()


def test_an_event_shows_what_was_filled() -> None:
    predictor = WrittenPredictor([EOS, 5, 6, 7, 8, 9], [0.95] * 6, 2)
    rule = sampler("sampler=threshold", "sampler.region.block_length=2")
    setting = Decoder(predictor, rule, NoCache(), EosPolicy.FILL_AFTER_BLOCK)  # type: ignore[arg-type]
    session = Session(setting)
    session.submit(Prompt("one", (3, 4), 6))
    ((_, change),) = session.step().written
    assert change.positions == (0, 1)
    assert change.answer.tolist() == [EOS, 5, EOS, EOS, EOS, EOS]


def test_prompts_may_never_end() -> None:
    taken = 0

    def endless() -> Iterator[Prompt]:
        nonlocal taken
        while True:
            # The same object again and again, too.
            yield prompts[taken % len(prompts)]
            taken += 1

    prompts = ragged_prompts(3)
    plain = decode(RULE, prompts)
    for cache in ("none", "dual", "window"):
        taken = 0
        rule = decoder(cache=cache, batch_size=2)
        expected = {o.sample_id: o.tokens for o in rule.decode(prompts)}
        outcomes = list(islice(rule.decode(endless()), 10))
        assert taken <= 10 + 2
        assert all(o.tokens == expected[o.sample_id] for o in outcomes)
        if cache == "none":
            assert expected == {name: outcome.tokens for name, outcome in plain.items()}


def test_one_prompt_many_times_at_once() -> None:
    prompt = ragged_prompts(1)[0]
    for cache in ("window", "d2cache", "dkv"):
        outcomes = list(decoder(cache=cache, batch_size=4).decode([prompt] * 6))
        assert len({outcome.tokens for outcome in outcomes}) == 1
        assert len(outcomes) == 6


@pytest.mark.parametrize("cache", ["dual", "dllm_cache"])
def test_memory_stays_where_it_is(cache: str) -> None:
    session = Session(decoder(CREDIT, cache, batch_size=3, positions=64))
    for prompt in ragged_prompts():
        session.submit(prompt)
    session.step()
    batch = session._batch
    store = batch.forwards.models["model"].store
    assert store is not None

    def places() -> list[int]:
        buffers = (*store.keys, *store.values, *store.outputs, store.valid, store.token)
        return [buffer.untyped_storage().data_ptr() for buffer in buffers]

    before = places()
    assert len(before) == 2 * SPEC.n_layers + 2 + SPEC.n_layers * (cache == "dllm_cache")
    sizes = set()
    while session.busy:
        session.step()
        sizes.add(len(store.valid))
        assert session._batch is batch
        assert places() == before
    assert {1, 3} <= sizes <= {1, 2, 3}


@pytest.mark.parametrize("cache", ["none", "dual", "window"])
def test_the_room_changes_no_token(cache: str) -> None:
    plain = {o.sample_id: o for o in decoder(CREDIT, cache).decode(ragged_prompts())}
    roomy = decoder(CREDIT, cache, batch_size=4, positions=61)
    for outcome in roomy.decode(ragged_prompts()):
        assert outcome.tokens == plain[outcome.sample_id].tokens
        assert outcome.cost.forwards == plain[outcome.sample_id].cost.forwards


def test_a_longer_prompt_waits_for_an_empty_batch_and_longer_memory() -> None:
    short = [Prompt(f"s{i}", (3, 4), 8) for i in range(3)]
    longer = [Prompt("long", tuple(range(2, 14)), 8), Prompt("longest", (5,) * 30, 8)]
    session = Session(decoder(cache="dual", batch_size=2))
    capacities = []
    for prompt in short:
        session.submit(prompt)
    session.step()
    tickets = [session.submit(prompt) for prompt in (*longer[:1], short[0], *longer[1:])]
    plain = {o.sample_id: o.tokens for o in decoder(cache="dual").decode([*short, *longer])}
    found = {}
    while session.busy:
        for ticket, outcome in session.step().finished:
            found[ticket] = outcome
            assert outcome.tokens == plain[outcome.sample_id]
        capacities.append(session._batch.capacity)
    assert set(tickets) <= set(found)
    # The longest waits when memory is made anew: it counts.
    assert sorted(set(capacities)) == [10, 38]


def test_a_session_with_fixed_positions_refuses_what_is_longer() -> None:
    session = Session(decoder(positions=16))
    session.submit(Prompt("fits", (3,) * 8, 8))
    message = r"sample long: prompt of 9 tokens \+ gen_length=8 exceeds the 16 positions of"
    with pytest.raises(ConfigError, match=message):
        session.submit(Prompt("long", (3,) * 9, 8))
    assert len(finished(session)) == 1


def test_cancelled_sequences_leave_without_a_word() -> None:
    prompts = ragged_prompts(6)
    plain = decode(RULE, prompts)
    session = Session(decoder(batch_size=2))
    tickets = [session.submit(prompt) for prompt in prompts]
    found = dict(session.step().finished)
    session.cancel(tickets[0])
    session.cancel(tickets[4])
    session.cancel(tickets[4])
    found |= finished(session)
    assert sorted(found) == [1, 2, 3, 5]
    for outcome in found.values():
        assert outcome.tokens == plain[outcome.sample_id].tokens
    session.cancel(tickets[1])
    assert not session.busy


def test_parts_are_checked_before_any_prompt_is_taken() -> None:
    single = sampler("sampler=fastdllm_dream", "sampler.region.block_length=null")

    def untouched() -> Iterator[Prompt]:
        raise AssertionError("taken")
        yield

    with pytest.raises(ConfigError, match="batch_size=2: FastDLLMDream"):
        next(decoder(single, batch_size=2).decode(untouched()))


def test_a_prompt_of_a_stream_is_checked_when_it_comes() -> None:
    model = CountingPredictor(random_model(replace(SPEC, max_positions=16)))
    coming = iter([Prompt("short", (3,), 8), Prompt("long", tuple(range(2, 12)), 8)])
    outcomes = Decoder(model, RULE, NoCache()).decode(coming)
    assert next(outcomes).sample_id == "short"
    with pytest.raises(ConfigError, match="sample long: prompt of 10 tokens"):
        next(outcomes)


def test_two_sessions_of_one_decoder_do_not_meet() -> None:
    rule = decoder(cache="window", batch_size=2)
    plain = {o.sample_id: o.tokens for o in rule.decode(ragged_prompts())}
    sessions = [Session(rule), Session(rule)]
    for prompt in ragged_prompts():
        for session in sessions:
            session.submit(prompt)
    found = []
    while any(session.busy for session in sessions):
        for session in sessions:
            found += [outcome for _, outcome in session.step().finished]
    assert len(found) == 18
    assert all(outcome.tokens == plain[outcome.sample_id] for outcome in found)
