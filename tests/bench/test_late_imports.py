"""What a run need not wait for before its first token."""

import subprocess
import sys


def test_a_run_is_imported_without_what_only_its_report_needs() -> None:
    program = (
        "import sys, dllm.report.exhibits, dllm.report.plan, dllm.runs.execute\n"
        "print(*{'scipy.stats', 'pandas', 'wandb', 'matplotlib'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout.split(), result.stderr) == ([], "")
