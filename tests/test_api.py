"""The Python API: the command line's tokens, errors and defaults."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dllm
from dllm.errors import ConfigError
from dllm.runs.checkpoint import Checkpoint
from dllm.step import scores
from dllm.step.sampler import Sampler


ROOT = Path(__file__).parents[1]
TEXTS = ["copy: Lars Kurt Ruth Lola", "reverse: Luca Ivy Gina Drew", "sort: Mary Gary Leo Ruby"]
CHAT = [{"role": "user", "content": "copy: Lars Kurt Ruth Lola"}]


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return dllm.load("tiny-llada")


def test_texts_chats_and_ids_are_the_same_prompt(tiny: Checkpoint) -> None:
    ids = tiny.tokenizer.chat(TEXTS[0])
    text, chat, given = dllm.generate(tiny, [TEXTS[0], CHAT, ids], sampler="localleap")
    assert text.text == chat.text == given.text == "Lars Kurt Ruth Lola"
    assert text.tokens == chat.tokens == given.tokens and len(text.tokens) == 32
    assert text.nfe == sum(text.forwards.values()) > 0
    assert text.tpf == text.effective / text.nfe
    assert text.trace is not None and len(text.trace.steps) >= 1 and text.failure is None


def test_forwards_of_further_models_are_counted_apart(tiny: Checkpoint) -> None:
    (answer,) = dllm.generate(tiny, TEXTS[:1], sampler="deer")
    assert answer.text == "Lars Kurt Ruth Lola"
    assert answer.nfe == sum(answer.forwards.values())
    verified = answer.other_forwards
    assert verified["verifier step"] >= 1 and verified["verifier prefill"] == 1


def test_the_command_line_decodes_the_same_tokens(tiny: Checkpoint, tmp_path: Path) -> None:
    """A rule that draws at random: the draws are the same, too."""
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": text}) for text in TEXTS))
    options = ["sampler=random", "sampler.steps=8", "sampler/proposer=gumbel", "cache=dual"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.run", "task=prompts", f"task.path={file}", *options),
            *("tracker=none", "progress=false", "baseline=false", f"output={tmp_path / 'runs'}"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("random/*/samples.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = dllm.generate(
        tiny,
        TEXTS,
        sampler="random",
        cache="dual",
        **{"sampler.steps": 8, "sampler/proposer": "gumbel"},
    )
    assert {line["prompt"]: line["tokens"] for line in lines} == {
        text: list(answer.tokens) for text, answer in zip(TEXTS, found, strict=True)
    }


def test_stream_shows_every_step(tiny: Checkpoint) -> None:
    steps = list(dllm.stream(tiny, TEXTS, sampler="threshold", batch_size=2))
    for number, whole in enumerate(dllm.generate(tiny, TEXTS, sampler="threshold")):
        mine = [step for step in steps if step.prompt == number]
        assert [step.result is None for step in mine] == [True] * (len(mine) - 1) + [False]
        assert mine[-1].result is not None and mine[-1].result.tokens == whole.tokens
        written = {p: t for step in mine for p, t in zip(step.positions, step.tokens, strict=True)}
        assert tuple(written[p] for p in range(32)) == whole.tokens
        assert mine[-1].text == whole.text


class TwoAtOnce(Sampler):
    """A reader's own rule."""

    def choose(self, score, view, state):
        return scores.top_k(score, view.candidates, torch.full((score.shape[0],), 2))


def test_a_sampler_of_ones_own(tiny: Checkpoint) -> None:
    from samplers.parts.proposers import Greedy
    from samplers.parts.regions import FixedBlocks

    mine = TwoAtOnce(region=FixedBlocks(block_length=None), proposer=Greedy(), conf_dtype="model")
    (answer,) = dllm.generate(tiny, TEXTS[:1], sampler=mine, trace=False)
    assert answer.nfe == 16 and answer.text == "Lars Kurt Ruth Lola" and answer.trace is None
    with pytest.raises(ConfigError, match="the sampler is an object already"):
        dllm.generate(tiny, TEXTS, sampler=mine, **{"sampler.threshold": 0.5})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(sampler="localleep"), "localleep"),
        (dict(cache="duel"), "duel"),
        (dict(gen_lenght=8), "gen_lenght=8 is no option"),
        (dict(gen_length="8"), "gen_length=8 is not of type int"),
        (dict(eos="never"), "eos=never is not one of"),
        ({"sampler.threshold": 2.0}, r"sampler\.threshold=2\.0"),
        ({"sampler.thresh": 0.5}, r"sampler\.thresh=0\.5 is no option"),
        (dict(task="json"), "task='json' is no option of generate"),
        (dict(limit=1), "limit=1 is no option of generate"),
        ({"tracker.mode": "online"}, "mode='online' is no option of generate"),
        ({"model.mask_id": 5}, "model.mask_id=5 is no option of generate: dllm.load takes"),
        (dict(cache="causal"), "causal"),
        (dict(gen_length=4096), "exceeds the model's"),
    ],
)
def test_the_same_errors(call: dict, message: str, tiny: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        dllm.generate(tiny, TEXTS, **{"sampler": "threshold", **call})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "prompts",
    [
        "copy: Anna",
        [[{"role": "user"}]],
        [5],
        [[]],
        None,
        5,
        iter(TEXTS),
        [[True, 5]],
        b"a",
        [b"ab"],
    ],
)
def test_prompts_that_are_none(prompts, tiny: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="prompts"):
        dllm.generate(tiny, prompts)


@pytest.mark.parametrize("ids", [[-1, 6], [854], [5, 10**6]])
def test_ids_outside_of_the_vocabulary(ids: list[int], tiny: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"token id .* is outside the vocabulary \[0, 854\)"):
        dllm.generate(tiny, [ids])


def test_draws_depend_on_the_prompt_not_on_its_place(tiny: Checkpoint) -> None:
    prompts = [*TEXTS[:2], tiny.tokenizer.chat(TEXTS[0])]
    given = {"sampler/proposer": "gumbel"}
    tokens = [a.tokens for a in dllm.generate(tiny, prompts, "threshold", **given)]
    other = [a.tokens for a in dllm.generate(tiny, prompts[::-1], "threshold", **given)]
    assert tokens == other[::-1]


def test_ids_of_any_library(tiny: Checkpoint) -> None:
    ids = tiny.tokenizer.chat(TEXTS[0])
    kinds = [ids, torch.tensor(ids), np.array(ids), [np.int64(i) for i in ids], tuple(ids)]
    answers = dllm.generate(tiny, kinds, trace=False)
    assert len({answer.tokens for answer in answers}) == 1
    for suppressed in ([5], torch.tensor([5]), np.array([5], dtype=np.int32), [np.int64(5)]):
        given = {"sampler.eot_ids": suppressed, "sampler.confidence_eos_eot_inf": True}
        assert dllm.generate(tiny, [ids], "low_confidence", **given)
    for wrong in (torch.tensor([5.0]), np.array([True]), ["5"]):
        with pytest.raises(ConfigError, match=r"sampler\.eot_ids=.* is not of type"):
            dllm.generate(tiny, [ids], "low_confidence", **{"sampler.eot_ids": wrong})
    assert dllm.load("tiny-llada", eos_ids=torch.tensor([1, 2])).spec.eos_ids == (1, 2)
    assert dllm.load("tiny-llada", eos_ids=[np.int64(1)]).spec.eos_ids == (1,)
    with pytest.raises(ConfigError, match="is no value of an option"):
        dllm.generate(tiny, [ids], **{"sampler.threshold": object()})


UNEVEN = {"sampler/region": "uneven", "sampler.region.block_length": 16}


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("sampler", ["low_confidence", "threshold", "localleap"])
def test_gaps_of_a_prompt_are_filled(tiny: Checkpoint, sampler: str, cache: str) -> None:
    ids = tiny.tokenizer.chat(TEXTS[0])
    mask, gaps = tiny.spec.mask_id, (3, 5)
    holed = [mask if i in gaps else token for i, token in enumerate(ids)]
    given = {"infill": True, "cache": cache, "gen_length": 8, **UNEVEN}
    holed_answer, plain = dllm.generate(tiny, [holed, ids], sampler, **given)
    region = [*holed[3:], *[mask] * 8]
    assert len(holed_answer.tokens) == len(region) and mask not in holed_answer.tokens
    kept = [(a, b) for a, b in zip(region, holed_answer.tokens, strict=True) if a != mask]
    assert all(a == b for a, b in kept)
    assert holed_answer.failure is None and len(gaps) <= holed_answer.effective <= len(gaps) + 8
    assert holed_answer.trace is not None
    assert list(holed_answer.trace.replay())[-1].tolist() == list(holed_answer.tokens)
    written = {p for step in holed_answer.trace.steps for p in step.positions}
    assert written == {i for i, token in enumerate(region) if token == mask}
    # Nothing changes for its neighbour without gaps, nor for the prompt alone.
    other = ids[1:]  # another prompt at the side
    assert plain == dllm.generate(tiny, [other, ids], sampler, **{**given, "infill": False})[1]
    *_, last = dllm.stream(tiny, [holed], sampler, **given)
    assert last.result is not None and last.result.tokens == holed_answer.tokens


def test_an_end_token_that_was_given_ends_nothing(tiny: Checkpoint) -> None:
    (end, *_), mask = tiny.spec.eos_ids, tiny.spec.mask_id
    ids = tiny.tokenizer.chat(TEXTS[0])
    given = {"infill": True, "gen_length": 8, **UNEVEN}
    (answer,) = dllm.generate(tiny, [[*ids[:3], mask, end, *ids[4:]]], "threshold", **given)
    assert answer.text.strip() and answer.tokens[1] == end
    assert 1 <= answer.effective <= 1 + 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "infill=True"),
        ({"infill": True, "gen_length": 8, **UNEVEN, "eos": "cut"}, "use eos=none"),
        (
            {"infill": True, "sampler": "daedal", "sampler.region.initial_length": 4},
            "gaps are filled on a canvas of one length",
        ),
        ({"infill": True}, "block_length=32 does not divide"),
    ],
)
def test_gaps_that_cannot_be_filled(tiny: Checkpoint, options: dict, words: str) -> None:
    ids = tiny.tokenizer.chat(TEXTS[0])
    ids[4] = tiny.spec.mask_id
    with pytest.raises(ConfigError, match=words):
        dllm.generate(tiny, [ids], **options)
    with pytest.raises(ConfigError, match="can't begin with a gap"):
        dllm.generate(tiny, [ids[4:]], infill=True)


def test_models_and_samplers_that_are_none(tiny: Checkpoint) -> None:
    for model in ("tiny-llada", None):
        with pytest.raises(ConfigError, match="is none: dllm"):
            dllm.generate(model, TEXTS)  # type: ignore[arg-type]
    for sampler in (None, object(), TwoAtOnce):
        with pytest.raises(ConfigError, match="is no name in conf/sampler and no sampler"):
            dllm.generate(tiny, TEXTS, sampler=sampler)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="model=None is no name"):
        dllm.load(None)  # type: ignore[arg-type]


def test_models_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model=tiny is no folder and not one of .*tiny-llada"):
        dllm.load("tiny")
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        dllm.load(str(tmp_path))
    with pytest.raises(ConfigError, match=r"model\.dtype"):
        dllm.load("tiny-llada", dtype="float8")
    with pytest.raises(ConfigError, match=r"model\.device=meta computes nothing"):
        dllm.load("tiny-llada", device="meta")
    with pytest.raises(ConfigError, match=r"model\.device=cuda:99 is not available"):
        dllm.load("tiny-llada", device="cuda:99")


def test_a_folder_is_a_model(checkpoint: Path) -> None:
    loaded = dllm.load(checkpoint, dtype="float32", device="cpu")
    (answer,) = dllm.generate(loaded, ["copy: Anna"], "low_confidence", gen_length=32)
    assert len(answer.tokens) == 32


def test_importing_it_is_cheap() -> None:
    program = "import sys, dllm; assert 'torch' not in sys.modules; dllm.load; print('ok')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stderr
    with pytest.raises(AttributeError, match="has no lod"):
        dllm.lod  # noqa: B018


def test_the_readme_example(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec(compile(code, "README.md", "exec"), {})
    assert "Drew Gina Ivy Luca" in capsys.readouterr().out
