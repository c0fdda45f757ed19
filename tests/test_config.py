"""Every configuration composes and builds; wrong ones are refused in one line with the option."""

import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
import yaml
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict
from tiny_decoding import SPEC

from dllm import config as configuration
from dllm.errors import ConfigError
from dllm.runs.beside import baseline_of
from dllm.runs.labels import differences
from dllm.runs.parts import build_parts
from dllm.step.eos import EosPolicy


CONF = Path(configuration.__file__).parents[1] / "conf"
GROUPS = ("sampler", "cache", "constraint", "task", "tracker", "model", "executor")


GIVEN = {"prompts": ["task.prompt=text"]}
"""What a choice can't be built without."""


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def cells() -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        for choice in choices(group):
            yield group, choice


@pytest.mark.parametrize(("group", "choice"), list(cells()))
def test_every_choice_composes_and_builds(group: str, choice: str) -> None:
    config = configuration.compose([f"{group}={choice}", *GIVEN.get(choice, ())])
    configuration.check_complete(config)
    configuration.check_options(config)
    built = configuration.build(config[group], group)
    described = "_target_" in config[group]
    assert (built is not None) == described
    if group == "sampler":
        assert {str(key) for key in config.sampler} - {"_target_"} <= set(vars(built))


@pytest.mark.parametrize("overlay", ["experiment", "debug"])
def test_every_overlay_composes(overlay: str) -> None:
    assert choices(overlay)
    for choice in choices(overlay):
        build_parts(configuration.compose([f"{overlay}={choice}"]))


@pytest.mark.parametrize("root", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_root_composes(root: str) -> None:
    assert configuration.compose(config_name=root)


def test_a_sampler_file_states_its_paper_or_method() -> None:
    for path in (CONF / "sampler").glob("*.yaml"):
        assert path.read_text().startswith("#"), path.name
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def wrong(*overrides: str) -> str:
    """The message with which a configuration is refused."""
    with pytest.raises(ConfigError) as refused:
        config = configuration.compose(overrides)
        configuration.check_complete(config)
        build_parts(config)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sampler.threshold=1.5", "sampler.threshold=1.5 is outside [0, 1]"),
        ("sampler.threshold=-0.1", "sampler.threshold=-0.1 is outside [0, 1]"),
        ("sampler.threshold=nan", "sampler.threshold=nan must be finite"),
        ("wait_minutes=nan", "wait_minutes=nan must be finite"),
        ("wait_minutes=inf", "wait_minutes=inf must be finite"),
        ("sampler.threshold=high", "sampler.threshold='high' is not of type"),
        ("sampler.radius=2.5", "sampler.radius=2.5 is not of type int"),
        ("sampler.radius=true", "sampler.radius=True is not of type int"),
        ("sampler.radius=-1", "sampler.radius=-1 must be >= 0"),
        ("sampler.conf_dtype=float8", "sampler.conf_dtype='float8' is not of type float64"),
        ("sampler.region.block_length=0", "block_length=0 must be >= 1"),
        ("sampler.region=5", "sampler.region=5 is not of type Region"),
        ("sampler.region=null", "sampler.region=None is not of type Region"),
        ("+sampler.radios=3", "sampler.radios is no option of samplers.localleap.LocalLeap"),
        ("~sampler.radius", "sampler.radius must be given"),
        ("~sampler", "sampler=None needs a choice: sampler=..."),
        ("sampler=null", "sampler=null needs a choice: one of adablock, "),
        ("~seed", "seed must be given"),
        ("wait_minutes=-0.5", "wait_minutes=-0.5 must be >= 0"),
        ("output='a/${nothing}'", "output=a/${nothing}: ${...} stands for another option"),
        (r"output='a/\${seed}/b'", "output=a/${seed}/b: ${...} stands for another option"),
        ("sampler._target_=5", "sampler._target_=5 is not the name of a class"),
        ("sampler.region._target_=null", "sampler.region._target_=None is not the name of a class"),
        ("sampler._target_=os.system", "sampler._target_=os.system is outside dllm., samplers."),
        ("sampler._target_=samplers.none.X", "sampler._target_=samplers.none.X can't be imported"),
        ("gen_length=0", "gen_length=0 must be >= 1"),
        ("gen_length=true", "gen_length=True is not of type int"),
        ("batch_size=0.5", "batch_size=0.5 is not of type int"),
        ("limit=-1", "limit=-1 must be >= 1"),
        (f"seed={2**63}", f"seed={2**63} is beyond 64 bits"),
        (f"sampler.radius={2**70}", f"sampler.radius={2**70} is beyond 64 bits"),
        (f"model.random={-(2**63) - 1}", "is beyond 64 bits"),
        (f"model.eos_ids=[{2**64}]", "model.eos_ids="),
        ("limit=???", "limit must be given"),
        ("seed=abc", "seed=abc is not of type int"),
        ("seed=${nothing}", "Interpolation key 'nothing' not found"),
        ("eos=maybe", "eos=maybe is not one of none, fill_after_block"),
        ("trace=5", "trace=5 is not of type bool"),
        ("output=null", "output=None is not of type str"),
        ("task.kinds=[nothing]", "task.kinds=['nothing'] must be distinct and among copy"),
        ("model.dtype=float8", "model.dtype='float8' is not of type"),
        ("+model.paht=x", "model.paht is no option of"),
        ("sampler.radios=3", "sampler.radios is no option"),
        ("sampler=nothing", "sampler=nothing is unknown; available: adablock, "),
        ("sampler=", "sampler= is unknown; available: adablock, "),
        ("sampler=a/b", "sampler=a/b is unknown; available: adablock, "),
        ("model=/some/folder", "model=/some/folder is unknown (a checkpoint's folder is model=ch"),
        ("task=my.jsonl", "task=my.jsonl is unknown (a file of one's own is task=prompts"),
        ("experiment=localleap/gsm8k", "(did you mean localleap/gsm8k_llada?)"),
        ("sampler=threshold,null", "sampler=null needs a choice: one of adablock, "),
    ],
)
def test_a_wrong_option_is_named(override: str, words: str) -> None:
    assert words in wrong(override)


def test_a_class_of_another_package_needs_permission() -> None:
    config = DictConfig({"_target_": "collections.OrderedDict"})
    with pytest.raises(ConfigError, match="needs allow_external=true"):
        configuration.build(config, "task")
    assert configuration.build(config, "task", allow_external=True) == {}


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"deeper": [x]}])
def test_no_class_of_another_package_hides(wrap: Callable[[dict], Any]) -> None:
    """In a list or a mapping of an option, too: what is built builds all that it holds."""
    texts = dict.fromkeys(("id", "task", "prompt", "answer"), "text")
    evil = {"d": wrap({"_target_": "os.system", "command": "true"})}
    config = OmegaConf.create({"_target_": "dllm.tasks.base.Sample", **texts, "meta": evil})
    with pytest.raises(ConfigError, match=r"part\.meta\..*_target_=os\.system is outside"):
        configuration.build(config, "part")


def test_hydra_s_own_parts_name_no_class() -> None:
    for override in ("+hydra.callbacks.x._target_=os.system", "hydra.x={_target_: os.system}"):
        with pytest.raises(ConfigError, match=r"chosen by name \(hydra/launcher"):
            configuration.check_choices([override])


@pytest.mark.parametrize(
    "override",
    [
        "tracker=none",
        "tracker.mode=online",
        "output=/elsewhere",
        "progress=false",
        "baseline=false",
        "trace=false",
        "allow_external=true",
    ],
)
def test_the_fingerprint_ignores_what_cannot_change_a_sample(override: str) -> None:
    plain = configuration.fingerprint(configuration.compose())
    assert configuration.fingerprint(configuration.compose([override])) == plain


@pytest.mark.parametrize(
    "override",
    [
        "sampler.radius=5",
        "sampler=threshold",
        "sampler.region.block_length=16",
        "sampler/proposer=gumbel",
        "gen_length=64",
        "eos=cut",
        "seed=1",
        "limit=65",
        "task=json",
        "model.path=/elsewhere",
        "model.dtype=bfloat16",
    ],
)
def test_the_fingerprint_holds_what_can(override: str) -> None:
    plain = configuration.fingerprint(configuration.compose())
    assert configuration.fingerprint(configuration.compose([override])) != plain


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    assert configuration.fingerprint(configuration.compose()) == configuration.fingerprint(
        configuration.compose(["sampler=localleap", "sampler.radius=4"])
    )


def test_differences_are_dotted_and_only_those() -> None:
    default = configuration.compose()
    changed = configuration.compose(["sampler.radius=9", "sampler.region.block_length=16"])
    found = differences(changed.sampler, default.sampler)
    assert sorted(found) == ["radius=9", "region.block_length=16"]


def test_differences_name_another_part_and_what_it_changes() -> None:
    default = configuration.compose()
    changed = configuration.compose(
        ["sampler/region=aligned", "sampler.region.overhang=keep", "sampler/proposer=gumbel"]
    )
    found = differences(changed.sampler, default.sampler)
    assert sorted(found) == ["proposer=gumbel", "region.overhang=keep", "region=aligned"]


def test_the_baseline_keeps_the_circumstances(options: Callable[..., list[str]]) -> None:
    config = configuration.compose(
        options("sampler=threshold", "sampler.threshold=0.5", "eos=cut", "seed=3")
    )
    base = baseline_of(config, SPEC)
    assert base.sampler._target_.endswith("LowConfidence") and base.sampler.steps is None
    assert base.sampler.region.block_length == 8
    for name in ("eos", "model", "task", "gen_length", "seed", "limit", "batch_size"):
        assert base[name] == config[name]
    again = baseline_of(configuration.compose(options("sampler=factor", "eos=cut", "seed=3")), SPEC)
    assert configuration.fingerprint(base) == configuration.fingerprint(again)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["sampler=eotp", "sampler@sampler.base=threshold", "sampler.base.threshold=1.5"],
            "sampler.base.threshold=1.5 is outside [0, 1]",
        ),
        (
            ["sampler=opening", "sampler@sampler.base=ete", "sampler@sampler.base.base=klass"],
            "sampler.base.base=Klass does not say",
        ),
        (
            [
                "sampler=opening",
                "sampler@sampler.base=bacd",
                "sampler.base.confidence_lower=0.5",
                "sampler.base.confidence_upper=0.25",
            ],
            "sampler.base.confidence_lower=0.5 exceeds sampler.base.confidence_upper=0.25",
        ),
        (
            ["+schedule@sampler.threshold=linear", "sampler.threshold.slope=0.5"],
            "sampler.threshold.slope=0.5 does not lead",
        ),
        (["sampler/proposer=gumbel", "sampler.proposer.temperature=0"], "sampler.proposer.temp"),
        (["sampler.region._target_=dllm.cache.none.NoCache"], "sampler.region=NoCache is not of"),
        (["cache._target_=samplers.threshold.Threshold"], "cache=Threshold is not of type"),
        (["+sampler.threshold._target_=dllm.cache.none.NoCache"], "sampler.threshold"),
        (["+nothing=1"], "nothing is no option; there are allow_external, "),
        (["+constraint.nothing=1"], "constraint.nothing is no option of constraint=none"),
    ],
)
def test_errors_name_what_was_typed(options: list[str], words: str) -> None:
    assert words in wrong(*options)


@pytest.mark.parametrize(("group", "choice"), list(cells()))
def test_every_option_of_a_class_stands_in_its_file(group: str, choice: str) -> None:
    """So that none has to be forced with `+`; parts are groups, which may be left empty."""
    part = configuration.compose([f"{group}={choice}"])[group]
    if "_target_" in part:
        fields = {*typing.get_type_hints(get_class(part._target_).__init__)} - {"return"}
        parts = {path.name for path in (CONF / "sampler").iterdir() if path.is_dir()}
        assert fields - parts <= {str(key) for key in part}


def test_every_root_is_checked() -> None:
    for root in sorted(path.stem for path in CONF.glob("*.yaml")):
        config = configuration.compose(["outputs=x"] if root == "grade" else [], root)
        configuration.check_options(config, root)
        name = next(n for n in config if not OmegaConf.is_config(config[n]))
        for change, words in (
            ({"nothing": 1}, "nothing is no option; there are "),
            ({name: {}}, f"{name}={{}} is not of type "),
        ):
            changed = config.copy()
            with open_dict(changed):
                changed.update(change)
            with pytest.raises(ConfigError, match=re.escape(words)):
                configuration.check_options(changed, root)
        with open_dict(config):
            del config[name]
        with pytest.raises(ConfigError, match=f"{name} must be given"):
            configuration.check_options(config, root)


def test_the_end_policies_are_listed_as_they_are() -> None:
    (line,) = [x for x in (CONF / "config.yaml").read_text().splitlines() if x[:4] == "eos:"]
    assert line.split(": ")[-1].split(" | ") == list(EosPolicy)


def test_choices_in_comments_are_those_of_the_class() -> None:
    """`option: value  # ...: a | b` beside an annotation `Literal["a", "b"]`."""
    checked = 0
    for path in CONF.rglob("*.yaml"):
        target = re.search(r"^_target_: (\S+)", path.read_text(), re.M)
        if target is None:
            continue
        hints = typing.get_type_hints(get_class(target[1]).__init__)
        for option, comment in re.findall(r"^(\w+): [^#\n]*# (.*\|.*)$", path.read_text(), re.M):
            hint = hints.get(option)
            allowed = [h for h in (hint, *typing.get_args(hint)) if get_origin(h) is Literal]
            if not allowed:
                continue
            missing = [v for v in typing.get_args(allowed[0]) if str(v) not in comment]
            assert not missing, (path.name, option, missing)
            checked += 1
    assert checked > 10
