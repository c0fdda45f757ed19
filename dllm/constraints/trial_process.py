"""What `trial.py` runs in a process of its own: reads {"kind", "text", "seconds", ...} from its
input and does with it what might not return. Knows nothing of the package, so that it starts
quickly."""

import json
import resource
import sys
from contextlib import suppress


MEMORY = 8 << 30
"""Bytes of addresses; a grammar that needs more ends the process, not the machine."""
STEPS = 16


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    given = json.load(sys.stdin)
    if given["seconds"] is not None:
        # A second more is the hard limit, which ends the process otherwise.
        resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"] + 1))
    if given["kind"] == "lark":
        _load(given["text"], given["start"])
    else:
        _mask(given["text"], given["tokenizer"], given["end"])


def _load(text: str, start: str) -> None:
    import lark

    # What is wrong with it is told by whoever loads it next.
    with suppress(lark.exceptions.LarkError, ValueError, RecursionError, OSError, AssertionError):
        lark.Lark(text, start=start, parser="earley", lexer="dynamic_complete")


def _mask(text: str, tokenizer: str, end: int) -> None:
    """A few masks on the way along the lowest ids."""
    import llguidance

    matcher = llguidance.LLMatcher(
        llguidance.LLTokenizer(tokenizer, eos_token=end), text, log_level=0
    )
    for _ in range(STEPS):
        if matcher.is_error() or matcher.is_stopped():
            return
        allowed = matcher.compute_bitmask()
        first = next((i for i in range(8 * len(allowed)) if allowed[i // 8] >> i % 8 & 1), None)
        if first is None or not matcher.try_consume_tokens([first]):
            return


main()
