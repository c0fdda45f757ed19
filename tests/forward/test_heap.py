"""What is freed stays with the process: the next allocation meets no fresh pages."""

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
        parts = [bytearray(8 << 20) for _ in range(3)]

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

    pages = 3 * 3 * (8 << 20) // 4096
    assert faults("keep") < pages // 10 < faults()
