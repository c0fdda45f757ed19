"""What decides a result decides the folder: code, model, templates, data; the rest does not."""

import importlib
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from random_checkpoint import write_checkpoint

from dllm.config import compose
from dllm.errors import ConfigError
from dllm.models import tokenizers
from dllm.models.filter import FilterFacts, FilterNetwork, save_filter
from dllm.runs.execute import execute
from dllm.runs.folder import RunFolder
from dllm.runs.identity import code_of, named_files


Options = Callable[..., list[str]]

RULE = """
from dataclasses import dataclass
import torch
from dllm.step import scores
from dllm.step.sampler import Sampler
from {helper} import COUNT


@dataclass(frozen=True, kw_only=True)
class Rule(Sampler):
    def choose(self, score, view, state):
        count = torch.full((score.shape[0],), COUNT)
        return scores.top_k(score, view.candidates, count)
"""


def run(options: list[str], name: str = "threshold") -> RunFolder:
    return RunFolder(execute(compose(options), name)[0])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Options) -> Callable[[], list]:
    """Decodes with a rule of one's own, as a new process would after an edit."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_rule.py").write_text(RULE.format(helper="own_count"))
    (tmp_path / "own_count.py").write_text("COUNT = 2\n")

    def decoded() -> list:
        for name in ("own_rule", "own_count"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        given = options("sampler=threshold", "baseline=false", "allow_external=true")
        folder = run([*given, "sampler._target_=own_rule.Rule", "~sampler.threshold"])
        return [folder.path, {result.steps for result in folder.samples()}]

    return decoded


@pytest.mark.parametrize("file", ["own_rule.py", "own_count.py"])
def test_an_edited_rule_is_another_run(
    own: Callable[[], list], tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkey = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        first, steps = own()
        assert steps == {4}
        text = (tmp_path / file).read_text()
        (tmp_path / file).write_text(
            text.replace("COUNT = 2", "COUNT = 8").replace(
                "torch.full((score.shape[0],), COUNT)", "torch.full((score.shape[0],), 8)"
            )
        )
        second, steps = own()
    finally:
        sys.dont_write_bytecode = monkey
    assert steps == {1} and second != first
    assert not first.exists()
    old = second.parent / "superseded" / first.name
    assert {result.steps for result in RunFolder(old).samples()} == {4}
    line = f"note: {file[:-3]} changed: decoded anew, the old results are in {old}"
    assert line in capsys.readouterr().err


def test_every_file_of_the_model_counts(options: Options, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    given = options("sampler=threshold", "baseline=false", "limit=1", f"model.path={folder}")
    marks = [run(given).path.name]
    weights = folder / "model.safetensors"
    before = weights.stat()
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    marks.append(run(given).path.name)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    marks.append(run(given).path.name)
    assert len(set(marks)) == 3


def test_the_day_counts_where_the_chat_template_writes_it(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "model")
    text = "{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"
    given = options("sampler=threshold", "baseline=false", "limit=1", f"model.path={folder}")
    (folder / "chat_template.jinja").write_text(text)
    marks = []
    for day in (1, 2, 2):
        monkeypatch.setattr(
            tokenizers, "date", SimpleNamespace(today=lambda d=day: date(2026, 5, d))
        )
        marks.append(run(given).path.name)
    assert marks[0] != marks[1] == marks[2]
    for finer in ("strftime_now('%d %f')", "strftime_now(form)", 'strftime_now("%c")'):
        (folder / "chat_template.jinja").write_text(
            f"{{{{ {finer} }}}}{{{{ messages[0].content }}}}"
        )
        with pytest.raises(ConfigError, match="the chat template asks for the time, strftime_now"):
            run(given)


def test_the_content_of_a_data_file_counts(options: Options, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "copy: Ada", "answer": "Ada", "id": "a"}\n')
    given = options("sampler=threshold", "baseline=false", "task=prompts", f"task.path={file}")
    first = run(given)
    file.write_text('{"prompt": "copy: Mia", "answer": "Mia", "id": "a"}\n')
    second = run(given)
    assert first.path != second.path
    assert [result.prompt for result in second.samples()] == ["copy: Mia"]


def test_the_content_of_a_filter_counts(options: Options, tmp_path: Path) -> None:
    file = tmp_path / "filter.safetensors"
    given = options("sampler=learn2pd", f"sampler.filter={tmp_path}", "baseline=false", "limit=1")
    paths = []
    for scale in (1.0, 2.0):
        network = FilterNetwork(FilterFacts(block_length=8, depth=1))
        weights = {"linear1.weight": scale * torch.eye(8), "linear1.bias": torch.zeros(8)}
        network.load_state_dict(weights)
        save_filter(network, file)
        paths.append(run(given, "learn2pd").path)
    assert paths[0] != paths[1]


def test_files_in_folders_lists_and_mappings_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tab/in/k.txt", "tab/.git/index", "key.txt", "other.txt", "runs/x", "m/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = OmegaConf.create(
        {
            "output": str(tmp_path / "runs"),
            "model": {"path": str(tmp_path / "m")},
            "sampler": {
                "table": str(tmp_path / "tab"),
                "above": "..",
                "own": ".",
                "text": "a" * 999,
            },
            "task": {"files": ["../key.txt", {"b": "../other.txt"}], "runs": "../runs"},
        }
    )
    found = {option: path.name for option, path in named_files(config, {"model.path"})}
    assert found == {
        "sampler.table/in/k.txt": "k.txt",
        "task.files.0": "key.txt",
        "task.files.1.b": "other.txt",
    }


def test_code_is_what_is_imported_and_no_more() -> None:
    found = code_of(["samplers.threshold"])
    assert {"samplers.threshold", "dllm.step.sampler", "dllm.models.spec", "dllm"} <= found.keys()
    assert "samplers.localleap" not in found
    assert not [name for name in found if not name.startswith(("dllm", "samplers"))]


def test_files_that_code_reads_or_runs_by_name_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = code_of(["dllm.constraints.constraint", "dllm.tasks.programs"])
    assert found.keys() >= {
        "dllm.constraints/grammars/json.lark",
        "dllm.constraints.trial_process",
        "dllm.tasks.sandbox.jail",
        "dllm.tasks.sandbox.program",  # what that script imports from beside it
        "dllm.tasks.sandbox.tests_side",
    }
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("table.json", "other.json", "data/words.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "own_reader.py").write_text("TABLE, WORDS, OUTSIDE = 'table.json', 'data', '..'")
    assert {path.name for path in code_of(["own_reader"]).values()} == {
        "own_reader.py",
        "table.json",
        "words.txt",
    }


def test_reused_results_are_announced(
    options: Options, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dllm.runs import run as module

    given = options("sampler=threshold", "baseline=false")
    folder = run(given)
    assert "reused" not in capsys.readouterr().err
    monkeypatch.setattr(module, "_MADE_HERE", set())  # as another process
    run(given)
    line = f"note: 6 of 6 samples reused from {folder.path} (overwrite=true decodes them again)\n"
    assert capsys.readouterr().err == line
    before = [result.seconds for result in folder.samples()]
    run([*given, "overwrite=true"])
    assert capsys.readouterr().err == ""
    assert [result.seconds for result in folder.samples()] != before


def test_traces_asked_for_later_are_made(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options("sampler=threshold", "baseline=false")
    folder = run([*given, "trace=false"])
    tokens = {result.id: result.tokens for result in folder.samples()}
    assert run(given).path == folder.path
    assert f"6 samples of {folder.path} have no trace: decoded again" in capsys.readouterr().err
    replayed = {t.sample_id: list(t.replay())[-1].tolist() for t in folder.traces()}
    assert replayed == tokens


@pytest.mark.parametrize("lost", ["removed", "empty", "truncated", "damaged"])
def test_lost_traces_are_noticed(
    options: Options, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    given = options("sampler=threshold", "baseline=false")
    folder = run(given)
    file = folder.path / "traces.jsonl.gz"
    data = file.read_bytes()
    if lost == "removed":
        file.unlink()
    else:
        half = len(data) // 2
        broken = {"empty": b"", "truncated": data[:half], "damaged": data[:half] + b"x" * half}
        file.write_bytes(broken[lost])
    run(given)
    assert "have no trace: decoded again" in capsys.readouterr().err
    assert {t.sample_id for t in folder.traces()} == {r.id for r in folder.samples()}
    assert len(folder.samples()) == 6


@pytest.mark.parametrize(
    "damage",
    ["not json", "{}", '{"id": 5}', "[1]", "another id", "wrong type", "NaN"],
)
def test_damaged_lines_are_decoded_again(
    options: Options, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    given = options("sampler=threshold", "baseline=false")
    folder = run(given)
    tokens = {result.id: result.tokens for result in folder.samples()}
    file = folder.path / "samples.jsonl"
    first, *rest = file.read_text().splitlines()
    name = next(iter(tokens))
    replaced = {
        "another id": first.replace(name, "f" * 16, 1),
        "wrong type": first.replace('"steps": ', '"steps": "many", "x": '),
        "NaN": first.replace('"seconds": ', '"seconds": NaN, "s": '),
    }
    file.write_text("\n".join([replaced.get(damage, damage), *rest]) + "\n")
    run(given)
    said = capsys.readouterr().err
    assert f"note: {file}, line 1" in said and "decoded again" in said
    assert {result.id: result.tokens for result in folder.samples()} == tokens
