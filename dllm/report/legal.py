"""The page of legal and refused pairs of sampler and cache, for each kind of model, with reasons.

What is legal is asked of the same function that refuses a run; nothing here knows a name.
"""

import re
from pathlib import Path

from dllm.config import build, choices, compose
from dllm.errors import ConfigError
from dllm.models.hub import open_spec
from dllm.models.spec import ModelSpec
from dllm.report.document import plain
from dllm.report.support import parts_of, unfit


PAGE = Path("docs/legal.md")
MODELS = (
    "llada-8b-instruct",
    "dream-7b-instruct",
    "sdar-8b-chat",
    "wedlm-8b-instruct",
    "diffusiongemma-26b-a4b-it",
)
"""One of each kind of attention and noise."""
_HEAD = """\
# Which sampler goes with which cache

`python -m scripts.report docs`

Every sampler and cache of `conf/` with its defaults, one sequence at a time, on one model of each
kind; `+` decodes, a number is the reason below for which a run is refused before its model is
loaded. Other options can change both (a region, guidance, a base): `--dry` says so for any
command, and `python -m scripts.fuzz --n 2000 --seed 1` tries random ones."""


def page() -> str:
    reasons: dict[str, int] = {}
    lines = [_HEAD]
    caches = choices("cache")
    policies = [build(compose([f"cache={name}"]).cache, "cache") for name in caches]
    for model in MODELS:
        spec = open_spec(build(compose([f"model={model}"]).model, "model"))
        lines += ["", f"## {model}: {_kind(spec)}", ""]
        lines += [f"| sampler | {' | '.join(caches)} |", f"|---|{'---|' * len(caches)}"]
        for name, parts in parts_of("sampler"):
            cells = []
            for policy in policies:
                found = [str(parts)] if isinstance(parts, ConfigError) else []
                if not isinstance(parts, ConfigError):
                    found = unfit(parts[0], policy, spec, None)
                numbers = [reasons.setdefault(_general(r), len(reasons) + 1) for r in found]
                cells.append(", ".join(map(str, dict.fromkeys(numbers))) or "+")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Reasons", ""]
    lines += [f"{number}. {plain(reason)}" for reason, number in reasons.items()]
    return "\n".join(lines) + "\n"


def _kind(spec: ModelSpec) -> str:
    shift = ", shifted logits" if spec.logit_shift else ""
    noise = "" if spec.noise == "mask" else f", {spec.noise} noise"
    return f"{spec.attention.replace('_', '-')} attention{shift}{noise}"


def _general(reason: str) -> str:
    """Without the names of the pair."""
    return re.sub(
        r"(sampler|cache)=(?!none)[A-Z]\w+",
        r"the \1",
        re.sub(r"\bthe (\w+) model", "the model", reason),
    )
