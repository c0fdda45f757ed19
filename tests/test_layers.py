"""The floors of the house: a file imports from lower floors only, whatever form the import has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]

FLOORS = (
    "scripts",
    "dllm.api",
    "dllm.report",
    "dllm.bench",
    "dllm.conform",
    "dllm.training",
    "dllm.runs",
    "samplers",
    "samplers.parts",
    "dllm.engine",
    "dllm.constraints",
    "dllm.cache",
    "dllm.forward",
    "dllm.step",
    "dllm.models",
    "dllm.tasks",
    "dllm.tracking",
    "dllm.metrics",
    "dllm.judging",
    "dllm.clock",
    "dllm.config",
    "dllm.errors",
    "dllm.printable",
)
"""Top to bottom. A file may import its own floor and those below it."""

OURS = {"dllm", "samplers", "scripts", "conf"}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, root: Path) -> Iterator[str]:
    """Full names of what a file imports, inside functions too: `import a.b`, `from a import b` (a
    module or a name of `a`) and relative forms."""
    package = module_name(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def floor(name: str) -> int | None:
    """The floor that a module or a name in it lies on; the longest entry wins."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:end])) in FLOORS:
            return FLOORS.index(prefix)
    return None


def arrows_upwards(root: Path) -> set[str]:
    """Imports of a higher floor, in every file of our packages under `root`."""
    found = set()
    for package in ("dllm", "samplers", "scripts"):
        for path in sorted((root / package).rglob("*.py")):
            own = floor(module_name(path, root))
            for name in imported(path, root):
                if name.split(".")[0] not in OURS:
                    continue
                target = floor(name)
                if own is not None and target is not None and target < own:
                    found.add(f"{path.relative_to(root)} imports {name}")
    return found


def test_every_module_lies_on_a_floor() -> None:
    files = [p for package in ("dllm", "samplers", "scripts") for p in (ROOT / package).rglob("*")]
    names = {module_name(p, ROOT) for p in files if p.suffix == ".py"}
    assert {name for name in names if floor(name) is None} == {"dllm"}


def test_no_import_of_a_higher_floor() -> None:
    assert arrows_upwards(ROOT) == set()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("dllm/cache/wrong.py", "import samplers.localleap"),
        ("dllm/cache/wrong.py", "from samplers import localleap"),
        ("dllm/models/wrong.py", "from dllm import cache"),
        ("dllm/models/wrong.py", "from ..cache import none"),
        ("dllm/models/wrong.py", "from .. import engine"),
        ("dllm/models/families/wrong.py", "def f():\n    from ...forward.store import KVStore"),
        ("samplers/parts/wrong.py", "from ..localleap import LocalLeap"),
        ("dllm/step/wrong.py", "import dllm.engine.loop as loop"),
    ],
)
def test_a_wrong_import_is_found_in_every_form(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    (found,) = arrows_upwards(tmp_path)
    assert found.startswith(f"{file} imports ")


def test_samplers_know_no_cache_and_no_engine() -> None:
    for path in sorted((ROOT / "samplers").rglob("*.py")):
        found = [n for n in imported(path, ROOT) if n.startswith(("dllm.cache", "dllm.engine"))]
        assert found == [], path.name


def test_the_top_of_samplers_holds_methods_only() -> None:
    """Whatever lies there is a part that some `conf/sampler` file names."""
    named = {
        match.split(".")[0]
        for path in (ROOT / "conf" / "sampler").rglob("*.yaml")
        for match in re.findall(r"_target_: samplers\.([\w.]+)", path.read_text())
    }
    here = {p.stem for p in (ROOT / "samplers").iterdir() if not p.stem.startswith("__")}
    assert here - named == {"parts"} - named


def test_no_remote_code_and_no_pickle() -> None:
    for path in (
        p for name in ("dllm", "samplers", "scripts") for p in (ROOT / name).rglob("*.py")
    ):
        text = path.read_text()
        assert text.count("trust_remote_code") == text.count("trust_remote_code=False"), path
        names = imported(path, ROOT)
        assert not [n for n in names if n.split(".")[0] in ("pickle", "dill")], path
