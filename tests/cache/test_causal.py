"""The streaming cache of causal models: exact, in whatever order positions are decided."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scripted import built
from tiny_decoding import SPEC, canvas_of, ragged_prompts, random_model

from dllm.cache.causal import CausalCache
from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.step.canvas import Canvas
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan, Request, pad_positions


CAUSAL = replace(SPEC, family="wedlm", attention="causal", max_positions=128)
MODEL = random_model(CAUSAL)
WEDLM = ("sampler=wedlm", "sampler.region.window=4", "sampler.entropy_threshold=1.5")


def outcomes(policy: CausalCache | NoCache, *options: str, batch_size: int = 1) -> list[Outcome]:
    rule = built(*(options or WEDLM))
    decoder = Decoder(Predictor(MODEL), rule, policy, batch_size=batch_size, record=True)
    found = {outcome.sample_id: outcome for outcome in decoder.decode(ragged_prompts())}
    return [found[prompt.sample_id] for prompt in ragged_prompts()]


def step(canvas: Canvas, policy: CausalCache, store: KVStore) -> list[Plan]:
    plans = policy.plan(canvas, Request(pad_positions(canvas.masked())), store)
    for plan in plans:
        Predictor(MODEL).predict(plan, store)
    return plans


def prefilled(tokens: np.ndarray) -> KVStore:
    """Keys and values of a plain causal forward over decided tokens."""
    store = KVStore(CAUSAL, 1, tokens.size, torch.float32)
    canvas = canvas_of([], prompt=tuple(tokens.tolist()))
    policy = CausalCache()
    policy.begin(CAUSAL)
    step(canvas, policy, store)
    return store


def start(masks: int) -> tuple[Canvas, CausalCache, KVStore]:
    canvas = canvas_of([0] * masks, prompt=(5, 6, 7))
    policy = CausalCache()
    policy.begin(CAUSAL)
    return canvas, policy, KVStore(CAUSAL, 1, 3 + masks, torch.float32)


def test_committed_keys_and_values_are_those_of_a_causal_prefill() -> None:
    canvas, policy, store = start(6)
    for decided in ((5, 3), (4,), (7,), (6, 8), ()):
        step(canvas, policy, store)
        canvas.tokens[0, list(decided)] = [9 + position for position in decided]
    stored = store.valid[0].nonzero().flatten()
    assert stored.tolist() == list(range(9))
    plain = prefilled(canvas.tokens[0, :9])
    for layer in range(CAUSAL.n_layers):
        keys, values = store.keys[layer][:, :, :9], store.values[layer][:, :, :9]
        torch.testing.assert_close(keys, plain.keys[layer], rtol=0, atol=1e-5)
        torch.testing.assert_close(values, plain.values[layer], rtol=0, atol=1e-5)


def test_a_token_behind_a_hole_is_not_kept() -> None:
    canvas, policy, store = start(4)
    step(canvas, policy, store)
    canvas.tokens[0, 5] = 9
    (plan,) = step(canvas, policy, store)
    assert plan.slots[0].tolist() == [5, 3, 4, 6]
    assert not isinstance(plan.write, torch.Tensor) or not plan.write.any()
    assert store.valid[0].tolist() == [True] * 3 + [False] * 4


def test_topological_order() -> None:
    """Positions 8 to 11, of which 8 and 10 are masked."""
    canvas = canvas_of([0, 9, 0, 9], prompt=(5,) * 8)
    policy = CausalCache()
    policy.begin(CAUSAL)
    _, plan = step(canvas, policy, KVStore(CAUSAL, 1, canvas.capacity, torch.float32))
    assert plan.slots[0].tolist() == [9, 11, 8, 10]


def test_a_changed_token_leaves_the_prefix() -> None:
    canvas, policy, store = start(4)
    step(canvas, policy, store)
    canvas.tokens[0, [3, 4]] = 9
    step(canvas, policy, store)
    canvas.tokens[0, 3] = 10
    (plan,) = step(canvas, policy, store)
    assert plan.slots[0].tolist() == [3, 4, 5, 6]
    plain = prefilled(canvas.tokens[0, :5])
    kept = [keys[:, :, :5] for keys in store.keys]
    torch.testing.assert_close(kept, plain.keys, rtol=0, atol=1e-5)


@pytest.mark.parametrize("refill", ["before_forward", "after_commit"])
def test_same_tokens_as_without_a_cache(refill: str) -> None:
    options = (*WEDLM, f"sampler.refill={refill}")
    cached, plain = outcomes(CausalCache(), *options), outcomes(NoCache(), *options)
    assert [o.tokens for o in cached] == [o.tokens for o in plain]
    # One prefill more per sequence, and far fewer rows.
    assert [o.cost.nfe - 1 for o in cached] == [o.cost.nfe for o in plain]
    assert sum(o.cost.rows for o in cached) < sum(o.cost.rows for o in plain)


def test_any_rule_may_stream() -> None:
    options = ("sampler=threshold", "sampler/region=streaming", "sampler.region.window=4")
    cached, plain = outcomes(CausalCache(), *options), outcomes(NoCache(), *options)
    assert [o.tokens for o in cached] == [o.tokens for o in plain]


def test_neighbours_change_nothing() -> None:
    alone, together = outcomes(CausalCache()), outcomes(CausalCache(), batch_size=4)
    assert [o.tokens for o in together] == [o.tokens for o in alone]
    assert [o.cost.rows for o in together] == [o.cost.rows for o in alone]


def test_causal_attention_only() -> None:
    decoder = Decoder(Predictor(random_model()), built("sampler=threshold"), CausalCache())
    with pytest.raises(ConfigError, match="needs causal attention; the model's is full"):
        list(decoder.decode(ragged_prompts(1)))


def test_next_token_predictions_cost_one_row_each() -> None:
    """An autoregressive model: the row before the first wanted position is fed, nothing else."""
    model = random_model(replace(CAUSAL, logit_shift=1))
    rule = built("sampler=left_to_right", "sampler/region=streaming", "sampler.region.window=1")
    found = {}
    for policy in (CausalCache(), NoCache()):
        decoder = Decoder(Predictor(model), rule, policy, batch_size=3)
        found[type(policy)] = {o.sample_id: o for o in decoder.decode(ragged_prompts())}
    for sample, outcome in found[CausalCache].items():
        assert outcome.tokens == found[NoCache][sample].tokens
        tokens = outcome.prompt_length + len(outcome.tokens)
        assert outcome.cost.rows == tokens
        assert outcome.cost.forwards == {"prefill": 1, "step": len(outcome.tokens)}


def test_next_token_predictions_are_those_of_a_plain_forward() -> None:
    model = random_model(replace(CAUSAL, logit_shift=1))
    prompt = ragged_prompts(1)[0]
    rule = built("sampler=left_to_right", "sampler/region=streaming", "sampler.region.window=1")
    outcome = next(Decoder(Predictor(model), rule, CausalCache()).decode([prompt]))
    text = list(prompt.tokens)
    with torch.inference_mode():
        for _ in range(prompt.gen_length):
            rows = torch.ones(len(text), len(text), dtype=torch.bool).tril()
            logits = model.logits(model.hidden(torch.tensor([text]), mask=rows[None, None]))[0, -1]
            logits[CAUSAL.mask_id] = -torch.inf
            text.append(int(logits.argmax()))
    assert list(outcome.tokens) == text[len(prompt.tokens) :]
