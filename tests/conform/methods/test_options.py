"""Command lines written from tables."""

from dllm.conform.methods.options import command, either, inside, same


RULE = command(
    "sampler=threshold",
    "sampler/region=aligned",
    {"sampler.threshold": "tau", "sampler.region.block_length": lambda p: p["length"] // 2},
    "cache={kind}",
)
RECORDED = {"tau": None, "length": 8, "kind": "dual"}


def test_a_command_writes_its_parts_in_order() -> None:
    assert RULE(RECORDED) == [
        "sampler=threshold",
        "sampler/region=aligned",
        "sampler.threshold=null",
        "sampler.region.block_length=4",
        "cache=dual",
    ]


def test_a_sampler_moves_inside_another_with_its_parts() -> None:
    assert inside("sampler=opening", inside(RULE))(RECORDED) == [
        "sampler@sampler.base=opening",
        "sampler@sampler.base.base=threshold",
        "sampler/region@sampler.base.base.region=aligned",
        "sampler.base.base.threshold=null",
        "sampler.base.base.region.block_length=4",
        "cache=dual",
    ]


def test_choices_by_parameter() -> None:
    choice = either(lambda p: p["tau"] is None, "eos=none", same("sampler", "tau"))
    assert choice(RECORDED) == ["eos=none"]
    assert choice({"tau": 0.5}) == ["sampler.tau=0.5"]
