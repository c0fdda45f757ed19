"""One distribution: what it carries, that it resolves to itself, and what an import costs."""

import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import pytest
from setuptools import find_packages

import conf
import dllm
import samplers
import scripts


ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("package", [dllm, samplers, scripts, conf])
def test_packages_are_those_of_this_distribution(package) -> None:
    # An unrelated distribution named `scripts` exists: it must not shadow ours.
    assert Path(package.__file__).parent == ROOT / package.__name__


def test_every_module_is_in_a_package_that_is_built() -> None:
    include = SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = set(find_packages(ROOT, include=include))
    for name in ("dllm", "samplers", "scripts"):
        for path in (ROOT / name).rglob("*.py"):
            assert ".".join(path.parent.relative_to(ROOT).parts) in packages, path


def test_configurations_templates_and_embedded_models_are_package_data() -> None:
    data = SETTINGS["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert any(path.match(pattern) or pattern == "**/*.yaml" for pattern in data["conf"])
    models = ROOT / "dllm" / "models"
    templates = (ROOT / "dllm" / "report" / "templates").iterdir()
    shipped = ((models / "tiny").rglob("*.*"), (models / "adapters").rglob("*.*"), templates)
    for path in chain(*shipped):
        name = str(path.relative_to(ROOT / "dllm"))
        patterns = [pattern.replace("**/", "*") for pattern in data["dllm"]]
        assert any(fnmatch(name, pattern) for pattern in patterns), name


def test_every_dependency_is_bounded_on_both_sides() -> None:
    project = SETTINGS["project"]
    extras = project["optional-dependencies"].values()
    listed = [*project["dependencies"], *chain.from_iterable(extras)]
    assert len(listed) > 10
    own = f"{project['name']}["  # an extra of this distribution, bounded in its own list
    for requirement in listed:
        if requirement.startswith(own):
            continue
        assert ">=" in requirement and "<" in requirement, requirement


def loaded_by(program: str) -> set[str]:
    """Top-level modules in a fresh interpreter after running the program."""
    program += "\nimport sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split("\n")[-2].split())


HEAVY = {"torch", "transformers", "datasets", "wandb", "accelerate", "scipy", "matplotlib"}


def test_importing_the_package_and_the_configuration_is_cheap() -> None:
    assert not loaded_by("import dllm, dllm.errors, dllm.config, scripts.run") & HEAVY


def test_decoding_needs_torch_and_little_else() -> None:
    assert loaded_by("import dllm.engine.loop, samplers.localleap") & HEAVY == {"torch"}


@pytest.mark.parametrize("option", [["--help"], ["--cfg", "job"]])
def test_looking_at_the_options_does_not_wait_for_torch(option: list[str]) -> None:
    program = (
        "import sys; from scripts import run\n"
        f"sys.argv = ['run', *{option}]\n"
        "try: run.main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code"
    )
    assert not loaded_by(program) & HEAVY
