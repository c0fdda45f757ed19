"""What is freed stays with the process: the next allocation meets no fresh pages."""

import os
import platform
import subprocess
import sys

import pytest


FAULTS = """
import resource, sys
from dllm.forward.heap import keep_freed_memory

if sys.argv[1:]:
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def activations():
    for _ in range(3):
        parts = [bytearray(size << 20) for size in (8, 8, 64)]

activations()
before = faults()
activations()
print(faults() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep their own way"
)
def test_freed_memory_is_kept() -> None:
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", FAULTS, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    pages = 3 * (80 << 20) // 4096
    assert faults("keep") < pages // 10 < faults()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are glibc's")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_TOP_PAD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_MAX_", "65536"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
    ],
)
def test_a_heap_that_the_user_has_set_is_left_alone(name: str, value: str) -> None:
    kept = subprocess.run(
        [sys.executable, "-c", FAULTS, "keep"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(kept.stdout) > 3 * 3 * (8 << 20) // 4096 // 10
