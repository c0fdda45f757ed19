"""`python -m scripts.replay` on runs of a random model: pages, other endings, one-line errors."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm.config import compose
from dllm.report.replay.command import command_of
from dllm.report.replay.source import Recorded
from dllm.runs.execute import execute
from scripts.replay import main


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run's folder; runs of the same options are made once."""
    output, made = tmp_path_factory.mktemp("replayed"), {}

    def folder(sampler: str, *more: str) -> Path:
        if (sampler, *more) not in made:
            options = [
                f"sampler={sampler}",
                f"model.path={checkpoint}",
                f"output={output}",
                "tracker=none",
                "progress=false",
                "baseline=false",
                "gen_length=16",
                "sampler.region.block_length=16",
                "limit=2",
                *more,
            ]
            made[sampler, *more], _ = execute(compose(options), sampler)
        return made[sampler, *more]

    return folder


@pytest.fixture
def said(capsys) -> Callable[..., tuple[int, str]]:
    def command(*arguments: Any) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert code == 0 or (out == "" and err.count("\n") == 1), err
        return code, out if code == 0 else err

    return command


def films_in(path: str) -> list[dict[str, Any]]:
    text = Path(path).read_text(encoding="utf-8")
    found = re.search(r'id="films">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


def test_a_page_of_one_sample(run, said, tmp_path: Path) -> None:
    folder = run("threshold", "sampler.threshold=0.1", "alternatives=3")
    code, out = said(folder)
    assert code == 0
    path = out.splitlines()[-1]
    assert Path(path).parent == folder.resolve() / "replay"
    (film,) = films_in(path)
    results = Recorded(folder).results
    first = next(iter(results.values()))
    assert film["sample"] == first.id and film["prompt"] == first.prompt
    assert film["alternatives"] == 3
    second = list(results)[1]
    code, out = said(folder, "--sample", second, "--output", tmp_path / "x" / "page.html")
    assert films_in(out.splitlines()[-1])[0]["sample"] == second


def test_two_runs_beside_each_other(run, said) -> None:
    one, two = run("threshold", "sampler.threshold=0.1", "alternatives=3"), run("low_confidence")
    _, out = said(one, two)
    fast, slow = films_in(out.splitlines()[-1])
    assert (fast["sample"], fast["title"]) != (slow["sample"], slow["title"])
    assert fast["sample"] == slow["sample"]
    assert len(fast["frames"]) < len(slow["frames"]) == 16


def test_another_ending(run, said) -> None:
    folder = run("low_confidence")
    code, out = said(folder, "--at", 5, "--set", "sampler=threshold", "sampler.threshold=0")
    recorded, other = films_in(out.splitlines()[-1])
    assert code == 0 and recorded["fork"] == other["fork"] == 5

    def written(film: dict[str, Any]) -> list:
        words = film["words"]
        return [[(at, words[t]) for at, t, *_ in f.get("cells", [])] for f in film["frames"]]

    assert written(recorded)[:5] == written(other)[:5]
    assert len(recorded["frames"]) == 16 and len(other["frames"]) == 6
    assert len(written(other)[5]) == 11
    assert other["title"] == "sampler=threshold, sampler.threshold=0 from forward 5 on"


def test_the_same_options_end_as_recorded(run, said) -> None:
    """The rule's memory is what it was: credit goes on where it stood."""
    for name in ("credit", "random"):
        _, out = said(run(name), "--at", 3, "--set", "eos=none")
        recorded, other = films_in(out.splitlines()[-1])
        assert recorded["answer"] == other["answer"]
        assert len(recorded["frames"]) == len(other["frames"]) > 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at", "16", "--set", "eos=cut"], ["--at 16 is not in [1, 15]"]),
        (["--at", "4"], ["--at FORWARD and --set OPTION=VALUE go together"]),
        (["--at", "4", "--set", "cache=dual"], ["--set cache=dual", "can change midway"]),
        (["--at", "4", "--set", "sampler.thresh=1"], ["sampler.thresh is no option"]),
        (["--at", "4", "--set", "sampler=thresh"], ["thresh"]),
        (
            ["--at", "4", "--set", "sampler=klass"],
            ["Klass remembers", "have not told"],
        ),
        (["--at", "4", "--set", "sampler.steps={a: [1"], ["--set", "'{a: [1' is no value"]),
        (["--at", "4", "--set", "eos=never"], ["eos=never is not one of"]),
        (["--sample", "none"], ["--sample none is no sample of"]),
        (["--speed", "0", "--terminal"], ["--speed 0.0 is not > 0"]),
    ],
)
def test_one_line_says_what_is_wrong(run, said, arguments: list[str], words: list[str]) -> None:
    code, err = said(run("low_confidence"), *arguments)
    assert code == 2
    for word in words:
        assert word in err


def test_a_run_without_traces_says_what_makes_them(run, said) -> None:
    folder = run("low_confidence", "trace=false", "seed=1")
    code, err = said(folder)
    assert code == 2
    command = re.search(r"python -m scripts.run (.*) with trace=true and alternatives=5", err)
    assert command
    assert "sampler=low_confidence" in command[1] and "seed=1" in command[1]


def test_the_command_of_a_run_composes_its_configuration() -> None:
    for options in (
        ["sampler=localleap", "sampler.radius=2", "cache=prefix", "limit=null"],
        ["sampler=threshold", "sampler/region=adaptive", "task=json", "constraint=json_schema"],
        ["sampler=sdar", "model=tiny-sdar", "cache=block", "model.dtype=float64", "seed=-1"],
        ["sampler=threshold", "sampler/logits_transform=credit", "eos=cut"],
    ):
        config = compose(options)
        command = command_of(config, options[0].partition("=")[2])
        assert command is not None
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "scripts.run"]
        assert set(words[3:]) == set(options)


def test_no_run(said, tmp_path: Path) -> None:
    code, err = said(tmp_path)
    assert code == 2 and "is no run folder" in err


def test_of_other_prompts(run, said) -> None:
    code, err = said(run("low_confidence"), run("low_confidence", "seed=3"))
    assert code == 2 and "is no sample of" in err
