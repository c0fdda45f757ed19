"""Presets of published settings: each composes, names its row, and runs with a tiny model."""

import json
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dllm.config import check_complete, compose
from dllm.errors import ConfigError
from dllm.report.plan import plan, published_row
from dllm.runs.execute import execute
from dllm.runs.parts import build_parts


FOLDER = Path(__file__).parents[1] / "conf" / "experiment"
# Those of conf/experiment/tune are search spaces: tests/runs/test_study.py
PUBLISHED = [path for path in FOLDER.glob("*/*.yaml") if path.parent.name != "tune"]
PRESETS = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in PUBLISHED)
METHODS = {"adablock", "credit", "daedal", "dinfer", "dystruct", "fast_dllm", "freedave", "klass"}
METHODS |= {"learn2pd", "localleap", "pc_sampler", "r2dllm", "rho_eos", "tdar", "wedlm", "wino"}
METHODS |= {"window_diffusion", "ete", "deer", "cfg", "lave", "parallelbench", "llada", "dream"}

ROWS = {
    "gsm8k": {"question": "1 + 1?", "answer": "#### 2"},
    "math500": {"problem": "1 + 1?", "solution": "$\\boxed{2}$", "answer": "2"},
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def f():\n",
        "entry_point": "f",
        "canonical_solution": "    return 1\n",
        "test": "def check(f):\n    assert f() == 1\n",
    },
    "jsonmode": {
        "instance_id": "jsonschema_0",
        "input": "Tom is 3.",
        "output": '{"age": 3}',
        "schema": '{"type": "object", "properties": {"age": {"type": "integer"}}}',
    },
    "jsonschema": {"json_schema": '{"type": "object"}', "unique_id": "a"},
    "parallelbench": {"input": {"context": '["A", "B"]'}, "answer": {"input": ["A", "B"]}},
    "mbpp": {"task_id": 11, "text": "One.", "code": "f = 1", "test_list": ["assert f == 1"] * 3},
}


def test_every_method_has_a_preset() -> None:
    assert {preset.split("/")[0] for preset in PRESETS} >= METHODS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_composes_and_names_its_row(preset: str) -> None:
    config = compose([f"experiment={preset}"])
    check_complete(config)
    build_parts(config)
    row, paper, _ = published_row(config.published)
    said = plan(config, sampler_of(preset))
    lacking = [line for line in said if line.startswith("not ready")]
    # the preset says that a filter of its model has to be named
    assert [line for line in lacking if "filter=tiny-llada was trained for" not in line] == []
    assert len(lacking) == preset.startswith("learn2pd/")
    assert "published" in said[-3]
    lines = (FOLDER / f"{preset}.yaml").read_text().splitlines()
    arxiv = paper.rpartition("arXiv ")[2].split()[0]
    assert any(arxiv in line for line in lines[1:4]), (paper, lines[1])
    assert row.benchmark


# What decides a figure and no default says: end of the answer, cache, temperature, thresholds.
AUTHORS = {
    "cfg/jsonmode_llada": {"eos": "fill_at_once", "sampler.proposer.temperature": 0.2},
    "credit/gsm8k_llada": {"eos": "fill_after_block", "sampler.region.block_length": 64},
    "daedal/gsm8k_llada": {"task.prefix": "<reasoning> "},
    "deer/humaneval_fastdllm": {"eos": "cut"},
    "dinfer/humaneval_llada_moe": {
        "eos": "fill_after_block",
        "gen_length": 1024,
        "sampler.region.block_length": 64,
        "cache._target_": "dllm.cache.vicinity.VicinityCache",
    },
    "dystruct/gsm8k_llada_base": {"task.filter": "strict_match"},
    "freedave/gsm8k_llada15": {
        "eos": "fill_after_end_block",
        "cache._target_": "dllm.cache.dual.DualCache",
    },
    "klass/gsm8k_llada": {
        "sampler.threshold": 0.6,
        "sampler.kl_threshold": 0.015,
        "sampler.region.block_length": 64,
    },
    "lave/jsonmode_llada": {"eos": "fill_at_once", "sampler.conf_dtype": "float64"},
    "lave/jsonschema_llada": {"eos": "fill_at_once", "sampler.conf_dtype": "float64"},
    "r2dllm/gsm8k_llada": {"cache._target_": "dllm.cache.dual.DualCache"},
    "tdar/math500_tdar": {
        "eos": "cut_after_block",
        "gen_length": 30000,
        "task.prefix": "<think>",
        "sampler.think_end": "</think>",
        "sampler.base.proposer._target_": "samplers.parts.proposers.Categorical",
        "cache.commit": "before_next",
    },
    "wedlm/gsm8k_wedlm": {"sampler.proposer.temperature": 0.1, "sampler.region.window": 6},
    "window_diffusion/gsm8k_llada_base": {"task.filter": "strict_match"},
    "wino/gsm8k_llada": {"sampler.threshold": 0.6, "sampler.region.block_length": 128},
}


@pytest.mark.parametrize("preset", AUTHORS)
def test_a_preset_decodes_as_the_authors_did(preset: str) -> None:
    config = compose([f"experiment={preset}"])
    assert {name: OmegaConf.select(config, name) for name in AUTHORS[preset]} == AUTHORS[preset]


def sampler_of(preset: str) -> str:
    """The name that the preset gives `sampler=`."""
    lines = (FOLDER / f"{preset}.yaml").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("  - override /sampler:"))
    return line.partition(": ")[2]


def _needs_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("programs are judged on Linux")


def tiny(preset: str, folder: Path) -> list[str]:
    """The preset with a model and a data file that are here, short enough for a test."""
    benchmark = preset.split("/")[1].split("_")[0]
    path = folder / "test.jsonl"
    path.write_text(json.dumps(ROWS[benchmark]))
    if benchmark == "parallelbench":
        path = folder / "waiting_line_n15" / "shuffle.jsonl"
        path.parent.mkdir()
        path.write_text(json.dumps(ROWS[benchmark]))
        settings = "{metric: list_shuffle_score, prompt: 'shuffle: {context}'}"
        (path.parent / "task_config.yaml").write_text(f"waiting_line_n15/shuffle: {settings}")
    small = ["model=tiny-llada", "limit=1", "gen_length=32", "tracker=none", "progress=false"]
    return [f"experiment={preset}", f"task.path={path}", f"output={folder / 'runs'}", *small]


@pytest.mark.filterwarnings("ignore")  # of sympy and its parser
@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("localleap/gsm8k_llada", []),
        ("localleap/mbpp_llada", []),
        ("localleap/humaneval_llada", []),
        ("cfg/jsonmode_llada", ["baseline=false"]),
        ("lave/jsonschema_llada", ["baseline=false", "sampler.steps=32"]),
        ("parallelbench/parallelbench_shuffle_llada15", ["sampler.steps=16"]),
        ("daedal/math500_llada", ["sampler.region.initial_length=32", "baseline=false"]),
    ],
)
def test_one_preset_per_benchmark_runs(preset: str, options: list[str], tmp_path: Path) -> None:
    if "mbpp" in preset or "humaneval" in preset:
        _needs_linux()
    if "math500" in preset:
        pytest.importorskip("math_verify")
    config = compose([*tiny(preset, tmp_path), *options])
    folder, summary = execute(config, sampler_of(preset))
    assert summary["metrics"]["n"] == 1
    assert (folder / "summary.json").is_file()


def test_a_plan_is_printed_and_nothing_done(tmp_path: Path) -> None:
    preset = "localleap/gsm8k_llada"
    lines = "\n".join(plan(compose([f"experiment={preset}"]), "localleap"))
    for words in ("GSAI-ML/LLaDA-8B-Instruct", "8.02 G parameters", "question, answer", "77.71"):
        assert words in lines
    here = "\n".join(plan(compose(tiny(preset, tmp_path)), "localleap"))
    assert "256 forwards per sample (baseline=false" in lines
    assert "which is shipped" in here and "1 samples, which are here" in here
    assert not (tmp_path / "runs").exists()


def test_the_plan_says_what_is_not_ready(tmp_path: Path) -> None:
    options = ["experiment=localleap/gsm8k_llada", f"task.path={tmp_path / 'nowhere.jsonl'}"]
    lines = "\n".join(plan(compose(options), "localleap"))
    assert "not ready: task.path=" in lines


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("model.device=meta", "model.device=meta computes nothing; use cpu, cuda, cuda:N or auto"),
        ("model.device=gpu0", "model.device=gpu0 computes nothing; use cpu, cuda"),
        ("model.compile=graphs", "model.compile=graphs records what one GPU computes, not"),
    ],
)
def test_the_plan_refuses_what_the_run_refuses(option: str, words: str, tmp_path: Path) -> None:
    config = compose([f"output={tmp_path / 'runs'}", option])
    for refused in (lambda: plan(config, "localleap"), lambda: execute(config, "localleap")):
        with pytest.raises(ConfigError, match=words):
            refused()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["gen_length=1000", "sampler.region.block_length=null"],
        ["model.chat=llama3"],
        ["constraint=json_schema", "constraint.schema=/nowhere.json"],
        ["cache=block"],
        ["model.adapter=/nowhere"],
    ],
)
def test_the_plan_tells_what_the_run_would_refuse(options: list[str], tmp_path: Path) -> None:
    config = compose([f"output={tmp_path / 'runs'}", "limit=1", *options])
    with pytest.raises(ConfigError) as refused:
        execute(config, "localleap")
    try:
        said = "\n".join(plan(config, "localleap"))
    except ConfigError as error:
        said = f"not ready      {error}"
    assert f"not ready      {refused.value}" in said
    assert not list(tmp_path.rglob("*.json*"))


def test_a_device_that_is_elsewhere(tmp_path: Path) -> None:
    config = compose([f"output={tmp_path / 'runs'}", "model.device=cuda:99"])
    assert "not ready      model.device=cuda:99 is not" in "\n".join(plan(config, "localleap"))
    with pytest.raises(ConfigError, match=r"model\.device=cuda:99 is not available .*; use cpu"):
        execute(config, "localleap")
    assert not (tmp_path / "runs").exists()
    config = compose(["executor=ray", "model.device=cuda:99"])
    assert "not ready" not in "\n".join(plan(config, "localleap"))


def test_the_plan_names_every_model_and_what_can_not_be(tmp_path: Path) -> None:
    options = ["experiment=deer/humaneval_fastdllm", "cache=dual"]
    lines = "\n".join(plan(compose(options), "deer"))
    assert "Qwen/Qwen2.5-1.5B-Instruct" in lines and "Fast_dLLM_v2_1.5B" in lines
    assert "not ready      cache=DualCache needs full attention" in lines
