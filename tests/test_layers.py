"""Who may import whom: the engine knows no sampler, samplers know the engine only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
OURS = {"dllm", "samplers", "scripts", "conf"}
ALLOWED = {
    "dllm": {"dllm"},
    "samplers": {"dllm", "samplers"},
    "scripts": {"dllm", "samplers", "scripts"},
}


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all imports in a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_downwards_only(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if (top := name.split(".")[0]) in OURS and top not in ALLOWED[package]
    }
    assert found == set()


ENGINE = ("canvas", "plan", "prediction", "decision", "state", "scores", "sampler", "eos", "trace")


@pytest.mark.parametrize("module", [*ENGINE, "loop"])
def test_the_engine_knows_no_task_tracker_or_run(module: str) -> None:
    above = ("dllm.tasks", "dllm.tracking", "dllm.runs", "dllm.report", "dllm.training", "hydra")
    found = [name for name in imports(ROOT / "dllm" / f"{module}.py") if name.startswith(above)]
    assert found == []


def test_caches_know_no_sampler_and_samplers_no_cache() -> None:
    for path in (ROOT / "dllm" / "cache").glob("*.py"):
        assert not [n for n in imports(path) if n in ("dllm.sampler", "dllm.loop")], path.name
    parts = {
        module
        for path in (ROOT / "conf" / "sampler").rglob("*.yaml")
        for module in re.findall(r"_target_: samplers\.(\w+)\.", path.read_text())
    }
    assert "localleap" in parts
    for part in parts:
        named = imports(ROOT / "samplers" / f"{part}.py")
        assert not [n for n in named if n.startswith(("dllm.cache", "dllm.loop"))], part


def test_no_remote_code_and_no_pickle() -> None:
    for path in (ROOT / "dllm").rglob("*.py"):
        text = path.read_text()
        assert "trust_remote_code=True" not in text, path
        assert not [n for n in imports(path) if n.split(".")[0] in ("pickle", "dill")], path
