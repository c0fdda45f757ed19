"""The lm-evaluation-harness with our decoding, on a task of its own in a local file."""

import json
from pathlib import Path
from typing import Any

import pytest


pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from dllm.errors import ConfigError
from dllm.runs.harness import LENGTHS, DllmModel, before, configuration_of
from scripts import lm_eval


pytestmark = pytest.mark.filterwarnings("ignore")

GENERATE = """
task: copying
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["!"], max_gen_toks: 32}}
metric_list: [{{metric: exact_match}}]
"""
CHOOSE = """
task: choosing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: 1
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
LISTS = ("Ada Bob Mia", "Mia Leo Tom", "Zoe Eva Tim")
ROWS = [
    {"question": f"copy: {names}", "answer": names, "choices": ["Tom Tom Tom", names]}
    for names in LISTS
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("copying", GENERATE), ("choosing", CHOOSE)):
        (folder / f"{name}.yaml").write_text(text.format(data=data, cache=tmp_path / "cache"))
    return folder


def model(tmp_path: Path, **arguments) -> DllmModel:
    options = {"output": str(tmp_path / "runs"), "sampler": "threshold", "draws": 8}
    return DllmModel(**{**options, **arguments})


def evaluated(tasks: Path, lm: DllmModel, *names: str) -> dict:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return simple_evaluate(
        model=lm,
        tasks=list(names),
        task_manager=manager,
        apply_chat_template=True,
        bootstrap_iters=0,
    )


def test_both_kinds_of_task(tasks: Path, tmp_path: Path) -> None:
    lm = model(tmp_path)
    found = evaluated(tasks, lm, "copying", "choosing")["results"]
    assert found["copying"]["exact_match,none"] == 1
    assert found["choosing"]["acc,none"] == 1
    lines = [json.loads(x) for x in (lm.folder / "requests.jsonl").read_text().splitlines()]
    written = [line for line in lines if line["task"] == "copying"]
    assert [line["output"] for line in sorted(written, key=lambda x: x["doc"])] == [
        row["answer"] for row in ROWS
    ]
    assert all(line["nfe"] > 0 for line in written)
    assert sum("error" in line for line in lines) == 6


def test_forwards_of_a_verifier_are_told(tasks: Path, tmp_path: Path) -> None:
    lm = model(tmp_path, model="tiny-llada", sampler="deer")
    evaluated(tasks, lm, "copying")
    lines = [json.loads(x) for x in (lm.folder / "requests.jsonl").read_text().splitlines()]
    assert lines
    for line in lines:
        assert line["other_forwards"]["verifier step"] >= 1
        assert line["nfe"] >= 1 and line["aux_forwards"] == 0


def test_answers_do_not_depend_on_the_batch(tasks: Path, tmp_path: Path) -> None:
    outputs = []
    for size in (1, 3):
        lm = model(tmp_path / str(size), batch_size=size)
        samples = evaluated(tasks, lm, "copying")["samples"]["copying"]
        outputs.append([sample["resps"] for sample in samples])
    assert outputs[0] == outputs[1]


def test_a_prompt_that_does_not_fit_is_counted(tasks: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "data.jsonl").write_text(
        json.dumps({**ROWS[0], "question": "copy: " + "Ada " * 2000}) + "\n" + json.dumps(ROWS[0])
    )
    lm = model(tmp_path)
    found = evaluated(tasks, lm, "copying")["results"]["copying"]
    assert found["exact_match,none"] == 0.5
    assert "1 of 2 prompts do not fit" in capsys.readouterr().err
    assert "exceeds the model's" in (lm.folder / "requests.jsonl").read_text()


def test_the_greedy_answer_is_told(tasks: Path, tmp_path: Path) -> None:
    lm = model(tmp_path, check_greedy=True, sampler="low_confidence")
    names = lm.apply_chat_template([{"role": "user", "content": "copy: Ada Bob Mia"}])

    asked = [request(names, "Ada Bob Mia"), request(names, "Tom Bob Mia"), request(names, "")]
    ours, wrong, nothing = lm.loglikelihood(asked)
    assert ours[1] and not wrong[1] and ours[0] > wrong[0]
    assert nothing == (0.0, True)


def request(*arguments: Any) -> Instance:
    return Instance("loglikelihood", {}, arguments, 0, metadata=("t", 0, 1))


def test_a_text_without_context_or_place(tmp_path: Path, capsys) -> None:
    lm = model(tmp_path)
    given = [request("", " Ada"), request(" ", "Ada"), request("Ada " * 600, " Ada")]
    alone, spaced, long = lm.loglikelihood(given)
    assert alone == spaced and alone[0] < 0
    assert long == (float("-inf"), False)
    said = capsys.readouterr().err
    assert "1 of 3 texts do not fit" in said and "check_greedy=false" in said
    assert "exceeds the model's 512 positions" in (lm.folder / "requests.jsonl").read_text()


def test_length_and_temperature_of_a_request(tmp_path: Path) -> None:
    lm = model(tmp_path, gen_length=32)
    prompt = lm.apply_chat_template([{"role": "user", "content": "copy: Ada Bob Mia"}])
    for name in LENGTHS:
        lm.generate_until([request(prompt, {"until": ["", " Mia"], name: 64})])
    lines = (lm.folder / "requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["output"] for line in lines] == ["Ada Bob"] * len(LENGTHS)
    for wrong in ({"temperature": 0.7}, {"max_gen_toks": 0}, {"max_new_tokens": -1}):
        with pytest.raises(ConfigError, match=f"request 0.*{next(iter(wrong))}"):
            lm.generate_until([request(prompt, wrong)])
    with pytest.raises(ConfigError, match="does not divide gen_length=40"):
        lm.generate_until([request(prompt, {"max_new_tokens": 40})])
    lm.generate_until([request(prompt, {"do_sample": False, "temperature": 0.7})])


@pytest.mark.parametrize("draws", [1, "many", 2.5])
def test_draws_are_a_number(tmp_path: Path, draws: object) -> None:
    with pytest.raises(ConfigError, match=f"draws={draws} is no whole number"):
        model(tmp_path, draws=draws)


def test_stop_texts() -> None:
    assert before("a. b! c", ["!", "."]) == "a"
    assert before("a. b", "b") == "a. "
    assert before("a. b", ["", "b"]) == "a. " and before("a. b", "") == "a. b"
    assert before("a", None) == before("a", []) == "a"


def test_options_are_those_of_a_run() -> None:
    config = configuration_of({"sampler": "localleap", "sampler.radius": 3, "trace": False})
    assert config.sampler.radius == 3 and config.trace is False
    with pytest.raises(ConfigError, match="nothing"):
        configuration_of({"sampler": "nothing"})


def test_the_command(tasks: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = f"model=tiny-llada,sampler=localleap,output={tmp_path / 'runs'}"
    monkeypatch.setattr("sys.argv", ["lm_eval"])
    task = str(tasks / "copying.yaml")
    given = ["--model", "dllm", "--model_args", arguments, "--tasks", task, "--apply_chat_template"]
    assert lm_eval.main(given) == 0
    assert "copying" in capsys.readouterr().out
    folder = next((tmp_path / "runs" / "lm_eval").iterdir())
    assert (folder / "requests.jsonl").is_file() and (folder / "config.yaml").is_file()
    assert list(folder.rglob("results_*.json"))
    wrong = ["--model", "dllm", "--model_args", "sampler=nothing", "--tasks", "copying"]
    assert lm_eval.main(wrong) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert lm_eval.main(["--model", "dllm", "--model_args", arguments, "--tasks", "absent"]) == 2
    assert "error: --tasks: Tasks not found: absent" in capsys.readouterr().err
