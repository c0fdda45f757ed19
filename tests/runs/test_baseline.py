"""The baseline's blocks: those of the run, or of a model that has its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_decoding import MASK, SPEC

from dllm.api import generate, load
from dllm.config import compose, fingerprint
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED
from dllm.models.spec import ModelSpec
from dllm.runs.beside import baseline_of
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder


BLOCKS = replace(SPEC, attention="block_causal", block_size=4)
BLOCK = "sampler.region.block_length"
ALIGNED = {"block_length": None, "untrained": "refuse", "overhang": "cut"}


@pytest.mark.parametrize(
    ("options", "kind", "length"),
    [
        (["sampler=threshold", "sampler.region.block_length=8"], "FixedBlocks", 8),
        (["sampler=wedlm"], "FixedBlocks", None),
        (["sampler=dystruct"], "FixedBlocks", None),
        (["sampler=daedal"], "FixedBlocks", 32),
        (["sampler=sdar", "sampler.region.block_length=4"], "AlignedBlocks", 4),
        (["sampler=daedal", "sampler.region.block_length=24"], "UnevenBlocks", 24),
        (["sampler=wedlm_block", "sampler.region.block_length=24"], "UnevenBlocks", 24),
    ],
)
def test_blocks_of_the_run(options: Sequence[str], kind: str, length: int | None) -> None:
    region = baseline_of(compose(options), SPEC).sampler.region
    assert region._target_.endswith(kind)
    assert region.block_length == length


@pytest.mark.parametrize("sampler", ["bacd", "tccf", "sdar"])
def test_blocks_of_the_model(sampler: str) -> None:
    region = baseline_of(compose([f"sampler={sampler}"]), BLOCKS).sampler.region
    assert {name: region[name] for name in ALIGNED} == ALIGNED


@pytest.mark.parametrize("spec", [SPEC, BLOCKS], ids=["full", "block_causal"])
@pytest.mark.parametrize(
    "region", ["fixed", "uneven", "adaptive", "growing", "streaming", "aligned"]
)
def test_beside_itself_one_token_per_step_is_the_same_run(region: str, spec: ModelSpec) -> None:
    config = compose(["sampler=low_confidence", f"sampler/region={region}", "eos=cut"])
    assert fingerprint(baseline_of(config, spec)) == fingerprint(config)


def test_an_autoregressive_model_s_baseline_goes_from_left_to_right() -> None:
    """It has never read a mask, so that no other position can be the surer one."""
    spec = replace(SPEC, attention="causal", logit_shift=1)
    config = compose(["sampler=prompt_lookup", "cache=causal"])
    base = baseline_of(config, spec)
    assert base.sampler == compose(["sampler=left_to_right", f"{BLOCK}=null"]).sampler
    plain = compose(["sampler=left_to_right"])
    assert fingerprint(baseline_of(plain, spec)) == fingerprint(plain)


@pytest.mark.parametrize("mask_id", [None, 0])
def test_a_run_of_an_autoregressive_model_keeps_to_the_rule_asked_for(
    mask_id: int | None, options: Callable[..., list[str]], tmp_path: Path
) -> None:
    """tiny-ar by its folder, without a mask token and with one."""
    masks = "null" if mask_id is None else mask_id
    model = [f"model.path={EMBEDDED / 'tiny-ar'}", f"model.mask_id={masks}"]
    words = "it has no mask token" if mask_id is None else "use sampler=left_to_right"
    with pytest.raises(ConfigError, match=words):
        execute(compose(options("sampler=random", *model)), "random")
    assert not (tmp_path / "runs").exists()
    checkpoint = load(str(EMBEDDED / "tiny-ar"), mask_id=mask_id, device="cpu")
    with pytest.raises(ConfigError, match=words):
        generate(checkpoint, ["copy: Ada"], "random")
    if mask_id is not None:
        own = ["sampler=left_to_right", "cache=causal", *model, "limit=2"]
        folder, summary = execute(compose(options(*own)), "left_to_right")
        assert summary["versus_baseline"]["agreement"] == 1
        assert (folder.parent / summary["baseline"]["fingerprint"]).is_dir()


def test_blocks_of_the_rule_inside() -> None:
    inside = ["sampler=opening", "sampler.base.region.block_length=4"]
    assert baseline_of(compose(inside), BLOCKS).sampler.region.block_length == 4


def test_blocks_of_the_run_where_they_are_the_attention_too() -> None:
    options = ["sampler=bacd", "sampler.region.block_length=8", "sampler.region.untrained=allow"]
    region = baseline_of(compose(options), BLOCKS).sampler.region
    assert region == compose(options).sampler.region


def test_a_block_causal_model_decodes_one_token_per_step_block_after_block(
    options: Callable[..., list[str]], block_checkpoint: Path
) -> None:
    model = [f"model.path={block_checkpoint}", "sampler.region.block_length=null"]
    folder, summary = execute(compose(options("sampler=bacd", "cache=block", *model)), "bacd")
    base = RunFolder(folder.parents[1] / "low_confidence" / summary["baseline"]["fingerprint"])
    prompts = {result.id: result.prompt_length for result in base.samples()}
    for trace in base.traces():
        at = [step.positions for step in trace.steps]
        assert all(len(positions) == 1 for positions in at)
        blocks = [(prompts[trace.sample_id] + position) // 4 for (position,) in at]
        assert blocks == sorted(blocks)
        assert MASK not in list(trace.replay())[-1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["sampler=adablock"], "its blocks are not free; use sampler/region=aligned"),
        (["sampler=daedal"], "a growing canvas needs full attention"),
        (
            ["sampler=dystruct", "sampler.delimiters=[Ada,absent]"],
            "sampler.delimiters=.*: the tokenizer has no token 'absent'",
        ),
        (["sampler=sdar", "sampler.region.block_length=8"], "allowed are 1 .causal. and 4"),
        (
            ["sampler=tccf", "sampler.final_region.block_length=2"],
            "sampler.final_region.block_length=2: .* allowed are 1 .causal. and 4",
        ),
        (["sampler=threshold", "sampler/region=aligned", "cache=dual"], "needs full attention"),
        (
            ["sampler=bacd", "constraint=grammar", "constraint.grammar=absent.lark"],
            "constraint.grammar=absent.lark can't be read: No such file",
        ),
        (
            ["sampler=bacd", "constraint=json_schema"],
            "constraint.schema=null: the task's samples have no schema",
        ),
        (["sampler=bacd", "constraint=regex", "constraint.pattern='a{300}'"], "is too short for"),
        (
            [
                "sampler=oracle",
                "sampler/region=aligned",
                "constraint=regex",
                "constraint.pattern=(",
            ],
            "constraint.pattern=",
        ),
    ],
)
def test_nobody_waits_for_the_baseline_of_a_run_that_is_refused(
    options: Callable[..., list[str]],
    block_checkpoint: Path,
    tmp_path: Path,
    wrong: list[str],
    message: str,
) -> None:
    given = [o for o in options(f"model.path={block_checkpoint}") if "region" not in o]
    name = wrong[0].removeprefix("sampler=")
    with pytest.raises(ConfigError, match=message):
        execute(compose([*given, *wrong]), name)
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
