"""Answers under a constraint: always valid, whatever the sampler and however bad the model."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tiny_decoding import random_model

from dllm.clock import NEVER, Deadline
from dllm.config import build, compose
from dllm.constraints.constraint import BoundGrammar
from dllm.constraints.errors import GrammarError
from dllm.constraints.languages import JsonSchema, LarkText, built_in
from dllm.constraints.trial import tried
from dllm.constraints.vocabulary import Vocabulary
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError, RunError
from dllm.forward.predictor import Predictor
from dllm.models.loading import read_spec
from dllm.models.spec import ModelSpec
from dllm.models.tokenizers import Tokenizer, load_tokenizer
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.tasks.arithmetic import Arithmetic
from dllm.tasks.extraction import json_schema


FOLDER = Path(__file__).parents[2] / "dllm" / "models" / "tiny" / "tiny-llada"
SAMPLERS = (
    "localleap",
    "threshold",
    "freedave",
    "r2dllm",
    "wino",
    "window",
    "low_confidence",
    "random",
    "left_to_right",
    "hierarchy_remask",
    "llada2_edit",
    "eotp",
)
SCHEMA = json_schema({"name": (), "age": ()})


@cache
def tokenizer() -> Tokenizer:
    return load_tokenizer(FOLDER)


@cache
def spec() -> ModelSpec:
    """The shipped model's vocabulary on a model that knows nothing."""
    small = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "head_dim": 16}
    return replace(read_spec(FOLDER), **small, d_ff=64)


@cache
def predictor() -> Predictor:
    return Predictor(random_model(spec()))


def decoder(*options: str, eos: EosPolicy = EosPolicy.NONE, seed: int = 0) -> Decoder:
    config = compose(options)
    constraint = build(config.constraint, "constraint")
    return Decoder(
        predictor(),
        build(config.sampler, "sampler").with_tokenizer(tokenizer()),
        build(config.cache, "cache"),
        eos,
        constraint.bind(tokenizer(), spec()),
        batch_size=2,
        seed=seed,
    )


def prompts(schema: Any = SCHEMA, gen_length: int = 32) -> list[Prompt]:
    text = json.dumps(schema)
    return [Prompt(f"s{i}", (2, 40 + i, 3), gen_length, schema=text) for i in range(3)]


def answer(outcome: Outcome) -> Any:
    assert outcome.failure is None
    tokens = list(outcome.tokens)
    end = next((i for i, token in enumerate(tokens) if token in spec().eos_ids), len(tokens))
    return json.loads(tokenizer().decode(tokens[:end], skip_special_tokens=False))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_untrained_model_writes_valid_json(sampler: str) -> None:
    options = ["sampler.region.block_length=16"] if sampler == "llada2_edit" else []
    run = decoder(f"sampler={sampler}", "constraint=json_schema", *options)
    for outcome in run.decode(prompts()):
        jsonschema.validate(answer(outcome), SCHEMA)
        assert outcome.cost.checks > 0


@pytest.mark.parametrize("sampler", ["localleap", "threshold", "low_confidence"])
def test_lookahead_keeps_the_guarantee(sampler: str) -> None:
    run = decoder(f"sampler={sampler}", "constraint=json_schema", "constraint.method=lave")
    for outcome in run.decode(prompts()):
        jsonschema.validate(answer(outcome), SCHEMA)


@pytest.mark.parametrize("eos", list(EosPolicy))
def test_every_way_to_end_an_answer_asks_first(eos: EosPolicy) -> None:
    run = decoder("sampler=threshold", "sampler.threshold=0", "constraint=json_schema", eos=eos)
    for outcome in run.decode(prompts()):
        jsonschema.validate(answer(outcome), SCHEMA)


def test_random_draws_are_checked_too() -> None:
    options = (
        "sampler=low_confidence",
        "sampler/proposer=gumbel",
        "sampler.proposer.temperature=1",
    )
    for outcome in decoder(*options, "constraint=json_schema").decode(prompts()):
        jsonschema.validate(answer(outcome), SCHEMA)


def test_random_draws_under_a_regular_expression() -> None:
    pattern = "^[A-Z]{3}-[0-9]{2,5}(x|yz)?$"
    options = ("sampler=threshold", "sampler/proposer=gumbel", "sampler.proposer.temperature=1")
    run = decoder(*options, "constraint=regex", f"constraint.pattern='{pattern}'")
    for outcome in run.decode(prompts()[:2]):
        assert outcome.failure is None
        text = tokenizer().decode([t for t in outcome.tokens if t not in spec().eos_ids])
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("cache", ["dual", "prefix"])
def test_block_caches_keep_the_guarantee(cache: str) -> None:
    options = ("sampler=localleap", f"cache={cache}", "sampler.region.block_length=16")
    for outcome in decoder(*options, "constraint=json_schema").decode(prompts()):
        jsonschema.validate(answer(outcome), SCHEMA)


@pytest.mark.parametrize("method", ["cfg", "lave"])
def test_gaps_of_any_length_may_run_out_of_room_and_say_so(method: str) -> None:
    options = ("sampler=threshold", "constraint.gap=any", f"constraint.method={method}")
    for outcome in decoder(*options, "constraint=json_schema").decode(prompts()):
        if outcome.failure is None:
            jsonschema.validate(answer(outcome), SCHEMA)
        else:
            assert "no token is allowed" in outcome.failure
            jsonschema.validate(json.loads(str(outcome.completion)), SCHEMA)


@pytest.mark.parametrize("patience", [0, None])
def test_refusing_one_token_at_a_time_or_all_at_once(patience: int) -> None:
    run = decoder("constraint=json_schema", f"constraint.patience={json.dumps(patience)}")
    for outcome in run.decode(prompts()[:1]):
        jsonschema.validate(answer(outcome), SCHEMA)


@pytest.mark.parametrize("method", ["cfg", "lave"])
def test_the_last_token_that_fits_is_used(method: str) -> None:
    # The shortest answer takes every position: one token wrong and nothing valid is left.
    bound = decoder("constraint=json_schema").constraint
    assert bound is not None
    with pytest.raises(ConfigError, match="the shortest answer that it allows takes 8 tokens"):
        bound.check(prompts(gen_length=4)[0])
    # Its lookahead tries the likeliest tokens only, and may refuse all that fit.
    options = ("constraint=json_schema", f"constraint.method={method}")
    options += ("sampler.region.block_length=8",)
    for outcome in decoder(*options).decode(prompts(gen_length=8)):
        assert answer(outcome).keys() == {"name", "age"}


def test_of_the_samples_own_schemas_the_bad_one_is_named() -> None:
    run = decoder("constraint=json_schema")
    with pytest.raises(ConfigError, match=r"schema=null \(sample s0\): .* nothing satisfies #"):
        next(run.decode(prompts({"type": "integer", "minimum": 2, "maximum": 1})))


@pytest.mark.parametrize("method", ["cfg", "lave"])
def test_what_stands_in_the_prompt_is_part_of_the_answer(method: str) -> None:
    begun = '{"name":"x'
    options = (f"constraint.method={method}", f"constraint.prefix='{begun}'")
    run = decoder("sampler=threshold", "constraint=json_schema", *options)
    assert isinstance(run.constraint, BoundGrammar)
    for outcome in run.decode(prompts()[:1]):
        assert outcome.failure is None
        tokens = [t for t in outcome.tokens if t not in spec().eos_ids]
        text = begun + tokenizer().decode(tokens, skip_special_tokens=False)
        jsonschema.validate(json.loads(text), SCHEMA)
    if method == "lave":
        # Its lookahead reads on from there: a letter may follow, a brace is no beginning.
        (parser,) = run.constraint._parsers.values()
        assert parser.viable(tokenizer().encode('y"'))


def given_answer(*pieces: str | int) -> tuple[int, ...]:
    """A generation region of texts and of so many masks each, end tokens behind it."""
    region: list[int] = []
    for piece in pieces:
        mask = isinstance(piece, int)
        region += [spec().mask_id] * piece if mask else tokenizer().encode(piece)
    return tuple(region + [spec().eos_ids[0]] * (32 - len(region)))


def test_the_gaps_of_a_given_answer_are_filled_to_a_valid_one() -> None:
    region = given_answer('{"name":"', 5, '","age":', 3, "}")
    given = [replace(prompt, region=region) for prompt in prompts()]
    for outcome in decoder("sampler=threshold", "constraint=json_schema").decode(given):
        jsonschema.validate(answer(outcome), SCHEMA)
        kept = [new for old, new in zip(region, outcome.tokens, strict=True) if old != new]
        assert len(kept) == 8


def test_a_given_answer_that_cannot_become_valid_is_refused_before_any_forward() -> None:
    given = replace(prompts()[0], region=given_answer('{"name":', 1, "]"))
    with pytest.raises(ConfigError, match="the gaps of the given answer leave none that it allows"):
        next(decoder("constraint=json_schema").decode([given]))


def test_what_is_not_decided_in_time_is_refused_where_something_else_fits() -> None:
    bound = decoder("constraint=json_schema").constraint
    assert isinstance(bound, BoundGrammar)
    bound.check(prompts()[0])
    (checker,) = bound._checkers.values()
    canvas = np.full(32, spec().mask_id)
    allowed, left = checker.allowed(canvas, 0, NEVER)
    assert allowed.any() and not left.any()
    checker.forget()
    fresh, left = checker.allowed(canvas, 0, Deadline.after(-1))
    assert not fresh.any()
    assert (left >= allowed).all()
    # A limit of one check does not outlive it.
    assert checker.finished(canvas) is False


def test_a_vocabulary_that_cannot_spell_the_grammar() -> None:
    bound = decoder("constraint=regex", "constraint.pattern=ab").constraint
    assert isinstance(bound, BoundGrammar)
    bound.vocabulary = Vocabulary((b"a", b"c", None))
    with pytest.raises(ConfigError, match="tokens can't spell any answer that it allows"):
        bound.check(prompts()[0])


def test_a_budget_ends_in_a_failure() -> None:
    run = decoder("constraint=json_schema", "constraint.budget=1", "constraint.patience=null")
    for outcome in run.decode(prompts()):
        assert "its budget of 1 rejected tokens is spent" in str(outcome.failure)
        # What it would have been at the least.
        jsonschema.validate(json.loads(str(outcome.completion)), SCHEMA)


def test_grammars_and_regular_expressions(tmp_path: Path) -> None:
    own = tmp_path / "own.lark"
    own.write_text('start: "a" start "b" | "c"\n')
    for outcome in decoder("constraint=grammar", f"constraint.grammar={own}").decode(prompts()[:1]):
        text = tokenizer().decode([t for t in outcome.tokens if t not in spec().eos_ids])
        depth = text.index("c")
        assert text == "a" * depth + "c" + "b" * depth
    for outcome in decoder("constraint=regex", "constraint.pattern='[0-9]{3}x'").decode(
        prompts()[:1]
    ):
        text = tokenizer().decode([t for t in outcome.tokens if t not in spec().eos_ids])
        assert len(text) == 4 and text[:3].isdigit() and text[3] == "x"


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("arithmetic", "smiles", "cpp")]


@pytest.mark.parametrize("grammar", ["json", *SLOW])
def test_built_in_grammars(grammar: str) -> None:
    # The judgement of the finished text is Lark's, and a bad one would be an error.
    for outcome in decoder("constraint=grammar", f"constraint.grammar={grammar}").decode(
        prompts()[:1]
    ):
        assert outcome.failure is None


def test_the_arithmetic_grammar_is_that_of_the_task() -> None:
    grammar = LarkText(built_in("arithmetic"), "start")
    for sample in Arithmetic().samples("test", 40):
        assert grammar.complaint(sample.answer) is None
        assert grammar.complaint(sample.answer.replace("=", "", 1)) is not None


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("false", "no value is valid: nothing satisfies #"),
        ('{"typo": 1}', "unknown keyword typo"),
        ('{"type": ', "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"type": "string", "pattern": "(a|b)*a(a|b){60}"}', "automaton states|compile_timeout"),
        (" " * 5_000_000, "characters are more than"),
    ],
)
def test_a_bad_schema_is_one_line_before_any_forward(
    schema: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "schema.json"
    path.write_text(schema)
    options = (f"constraint.schema={path}", "constraint.compile_timeout=20")
    run = decoder("constraint=json_schema", *options)
    with pytest.raises(ConfigError, match=complaint) as caught:
        next(run.decode(prompts()))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schema_that_llguidance_refuses_names_the_other_method() -> None:
    refused = prompts({"type": "integer", "not": {"const": 1}})
    options = ("constraint=json_schema", "constraint.method=lave")
    with pytest.raises(ConfigError, match=r"lave: .*not.*; try constraint\.method=cfg"):
        next(decoder(*options).decode(refused))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["constraint=json_schema", "constraint.schema=absent.json"], "can't be read"),
        (["constraint=grammar", "constraint.grammar=absent"], "built in are arithmetic"),
        (["constraint=grammar", "constraint.start=nothing"], "=json: it has no rule nothing to"),
        (["constraint=regex", "constraint.pattern='('"], "no regular expression"),
        (["constraint=regex", "constraint.pattern='[[:digit:]]'"], "meaning in other dialects"),
        (
            ["constraint=json_schema", "constraint.prefix='['"],
            "no answer that it allows begins like this",
        ),
        (["constraint=json_schema", "constraint.patience=-1"], "must be >= 0"),
        (["constraint=regex", "constraint.check_timeout=nan"], "check_timeout=nan must be finite"),
        (["constraint=regex", "constraint.compile_timeout=inf"], "timeout=inf must be finite"),
    ],
)
def test_bad_options_are_one_line_before_any_forward(options: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        next(decoder(*options).decode(prompts()))


@pytest.mark.parametrize(
    ("text", "method", "complaint"),
    [
        # llguidance reads as many a's as there are, and then looks for one for ever
        ("start: A B\nA: /a+/\nB: /ab/\n", "lave", "lave is not compiled within"),
        # Lark itself takes minutes
        (
            "start: n0\n" + "".join(f"n{i}: n{i + 1}\n" for i in range(20_000)) + 'n20000: "a"\n',
            "cfg",
            "is not compiled within",
        ),
        ('start: a\na: a "x"\n', "cfg", "no text can be derived"),
        ('start: "a" b\n', "cfg", "'b' used but not defined"),
        ("", "cfg", "it has no rule start to start with"),
        ("start: /[[:alpha:]]/\n", "cfg", "has another meaning in other dialects"),
        ("start: A\nA: /a\n", "cfg", "line 2 column 4: A: /a$"),
        ("start: A\n%import .base (A)\n", "cfg", "%import .base: only Lark's own grammars"),
        ("start: A\n%import nowhere.A\n", "lave", "%import of a grammar that Lark does not have"),
        ("start: A\n%import .base.A\n" + "// a\n" * 5000, "cfg", "%import .base.A: only Lark's"),
    ],
)
def test_a_bad_grammar_is_one_line_before_any_forward(
    text: str, method: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.lark"
    path.write_text(text)
    (tmp_path / "base.lark").write_text('A: "a"')
    monkeypatch.chdir(tmp_path)
    run = decoder(
        "constraint=grammar",
        f"constraint.grammar={path}",
        f"constraint.method={method}",
        "constraint.compile_timeout=2",
    )
    with pytest.raises(ConfigError, match=complaint) as caught:
        next(run.decode(prompts()))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rules", ['start: start "a" | "a"', 'start: start start | "a"', 'start: x "a"*\nx: | x x | "a"']
)
def test_left_recursive_and_ambiguous_grammars_work(rules: str, tmp_path: Path) -> None:
    path = tmp_path / "own.lark"
    path.write_text(rules + "\n")
    options = ("constraint=grammar", f"constraint.grammar={path}", "sampler.region.block_length=8")
    for outcome in decoder(*options).decode(prompts(gen_length=8)[:1]):
        assert outcome.failure is None
        text = tokenizer().decode([t for t in outcome.tokens if t not in spec().eos_ids])
        assert not text.strip("a")


def test_another_start_symbol_than_the_rule_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "own.lark"
    path.write_text('start: "start" pair // start\npair: "a" /start|\\/"/\nstart_: start pair\n')
    options = ("constraint=grammar", f"constraint.grammar={path}", "constraint.start=pair")
    for outcome in decoder(*options, "constraint.method=lave").decode(prompts()[:1]):
        assert outcome.failure is None
        text = tokenizer().decode([t for t in outcome.tokens if t not in spec().eos_ids])
        assert text in ("astart", 'a/"')


def test_a_compilation_that_is_killed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllm.constraints.trial.PROCESS", Path(__file__).with_name("killed.py"))
    with pytest.raises(GrammarError, match="ended by signal 9") as caught:
        tried(NEVER, kind="lark", text="", start="")
    assert "\n" not in str(caught.value)


def test_a_text_that_the_judge_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonSchema, "complaint", lambda self, text: "wrong")
    with pytest.raises(RunError, match="answer is wrong"):
        next(decoder("constraint=json_schema").decode(prompts()))
