"""Mutation score: the share of a random sample of mutants that the tests notice.

    python .ci/mutation.py --mutants 150 --seed 1

mutmut (pyproject.toml, [tool.mutmut]) writes mutants of every function into mutants/. A mutant is
tried by the tests of its module (the file of the same name), of its folder and of the modules that
import it, by the recorded traces and the battery of its samplers, and by all others (a check of a
sampler's options by the tests of their ranges first), in this order and among equals by the words
that a file shares with the function, until one fails or `--seconds` of processor time are spent: a
mutant that would be noticed later counts as survived. Tests that do not come to an end within ten
times as long notice, too.
"""

import argparse
import ast
import json
import os
import random
import re
import resource
import shutil
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants


FOLDER = Path("mutants").resolve()
TESTED = ("tests/samplers", "tests/cache", "tests/engine", "tests/step", "tests/constraints")
TRACES = "tests/conform/test_traces.py"
RANGES = ("tests/samplers/test_option_ranges.py", "tests/samplers/test_scheduled_thresholds.py")
BATTERY = (*RANGES, "tests/samplers/test_battery.py", "tests/samplers/test_compositions.py")
QUIET = ("-x", "-q", "-p", "no:cacheprovider")


class Limit:
    """Ends a run of tests when the time of its process is spent."""

    def __init__(self, seconds: float):
        self.end = time.process_time() + seconds

    def spent(self) -> bool:
        return time.process_time() > self.end

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if self.spent():
            item.session.shouldstop = "time is spent"


def written() -> list[str]:
    """Names of all mutants, once they are written."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(os.cpu_count() or 1)
    return sorted(
        name
        for path in FOLDER.rglob("*.py.meta")
        for name in json.loads(path.read_text())["exit_code_by_key"]
    )


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z\d]{3,}", text.lower()))


def by_relevance(files: list[Path], module: str, function: str) -> list[Path]:
    """The tests that share most words with a function first; rare words count more."""
    tree = ast.parse(Path(*module.split(".")).with_suffix(".py").read_text())
    wanted = {
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == function
        for word in words(ast.unparse(node))
    }
    known = {path: words(path.read_text()) for path in files}
    count = Counter(word for found in known.values() for word in found)
    return sorted(files, key=lambda path: -sum(1 / count[word] for word in wanted & known[path]))


@cache
def trials(module: str, function: str) -> tuple[tuple[str, ...], ...]:
    """Arguments of the runs of pytest that may notice a mutant of the function."""
    users = {module}
    for package in ("samplers", "dllm"):
        for path in Path(package).rglob("*.py"):
            if f"from {module} import" in path.read_text():
                users.add(".".join(path.with_suffix("").parts))
    files = sorted(path for folder in TESTED for path in Path(folder).rglob("test_*.py"))
    # Not the samplers' own: one file each, of which the others say little.
    folder = Path("tests", *module.removeprefix("dllm.").split(".")[:-1])
    siblings = set() if folder == Path("tests/samplers") else set(folder.glob("test_*.py"))

    def distance(path: Path) -> int:
        if str(path) in BATTERY:
            return 4
        if path.stem == f"test_{module.rpartition('.')[2]}":
            return 0
        if path in siblings:
            return 1
        if f"from {module} import" in path.read_text():
            return 2
        if path.stem.removeprefix("test_") in {part for user in users for part in user.split(".")}:
            return 2
        return 3

    ordered = by_relevance(files, module, function)
    runs = [tuple(str(path) for path in ordered if distance(path) == n) for n in range(4)]
    names = {
        path.stem
        for path in Path("conf/sampler").glob("*.yaml")
        if any(f"_target_: {user}." in path.read_text() for user in users)
    }
    # A part that configurations choose by name serves samplers that do not import it.
    chosen = any(f"_target_: {module}." in p.read_text() for p in Path("conf").glob("*/*/*.yaml"))
    named = ("-k", " or ".join(sorted(names))) if names and not chosen else ()
    *near, others = runs
    if not module.startswith("samplers."):
        return (*filter(None, runs), BATTERY)
    if function == "__post_init__" or module == "samplers.parts.checks":
        near.insert(0, (*RANGES, *named))
    recorded = [(f"{TRACES}::test_recorded", *named)] if named else []
    return (*filter(None, near), *recorded, (*BATTERY, *named), others)


def noticed(mutant: str, seconds: float) -> str:
    """killed, endless or survived: by tests in a process of their own."""
    child = os.fork()
    if not child:
        os.environ["MUTANT_UNDER_TEST"] = mutant
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(10 * seconds), int(10 * seconds)))
        limit = Limit(seconds)
        for run in runs_of(mutant):
            # 1: a test failed, 3: pytest broke; otherwise all passed that there was time for.
            if pytest.main([*QUIET, *run], plugins=[limit]) in (1, 3):
                os._exit(1)
            if limit.spent():
                break
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "endless"
    return "killed" if os.waitstatus_to_exitcode(status) else "survived"


def runs_of(mutant: str) -> tuple[tuple[str, ...], ...]:
    module, _, mangled = mutant.partition("__mutmut_")[0].rpartition(".")
    return trials(module, mangled.removeprefix("x_").rpartition("ǁ")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation score of a random sample.")
    parser.add_argument("--mutants", type=int, required=True, help="size of the sample")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=20.0, help="processor time per mutant")
    asked = parser.parse_args()
    sample = random.Random(asked.seed).sample(written(), asked.mutants)
    for mutant in sample:
        runs_of(mutant)
    os.chdir(FOLDER)
    sys.path.insert(0, str(FOLDER))
    os.environ["MUTANT_UNDER_TEST"] = ""
    # Everything is imported once, here.
    if pytest.main([*QUIET, "--collect-only", "-qq", *TESTED, TRACES]):
        raise SystemExit("the tests can't be collected")
    found: Counter[str] = Counter()
    for mutant in sample:
        result = noticed(mutant, asked.seconds)
        found[result] += 1
        print(f"{result:9} {mutant}", flush=True)
    score = 1 - found["survived"] / asked.mutants
    print(f"{score:.1%} of {asked.mutants} mutants are noticed: {dict(found)}")


if __name__ == "__main__":
    main()
