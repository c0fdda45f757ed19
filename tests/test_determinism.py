"""docs/determinism.md: what is equal to the token. Its lines name tests; these are those that
belong to no single part."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_decoding import NOISE, SPEC, ragged_prompts, random_model, sampler

from dllm import config as configuration
from dllm.cache.policy import CachePolicy
from dllm.engine.legality import refusals
from dllm.engine.loop import Decoder
from dllm.forward.predictor import Predictor
from dllm.models.spec import ModelSpec


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "determinism.md"
CACHES = configuration.choices("cache")
SPECS = (
    SPEC,
    replace(SPEC, attention="block_causal", block_size=4),
    replace(SPEC, attention="causal"),
    NOISE,
)


def cell(cache: str) -> tuple[ModelSpec, CachePolicy, Any]:
    """The first attention kind that the cache is for, and a rule that goes with both."""
    policy = configuration.build(configuration.compose([f"cache={cache}"]).cache, "cache")
    for spec in SPECS:
        for options in (
            ("sampler=threshold", "sampler.threshold=0.4"),
            ("sampler=window", "sampler.window_length=4"),
            ("sampler=wedlm",),
            ("sampler=diffusion_gemma",),
        ):
            try:
                rule = sampler(*options) if options[0] == "sampler=threshold" else _own(options)
            except configuration.ConfigError:
                continue
            if not refusals(rule, policy, spec):
                return spec, policy, rule
    raise AssertionError(f"no rule for cache={cache}")


def _own(options: tuple[str, ...]) -> Any:
    return configuration.build(configuration.compose(options).sampler, "sampler")


def tokens(
    cache: str,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 1,
    backwards: bool = False,
    count: int = 5,
) -> dict[str, tuple[int, ...]]:
    spec, policy, rule = cell(cache)
    predictor = Predictor(random_model(spec).to(dtype))
    prompts = ragged_prompts(5)[:count][:: -1 if backwards else 1]
    outcomes = Decoder(predictor, rule, policy, batch_size=batch_size).decode(prompts)
    return {outcome.sample_id: outcome.tokens for outcome in outcomes}


@pytest.mark.parametrize("cache", CACHES)
def test_batch_order_and_threads_under_every_cache(cache: str) -> None:
    # Ranks by similarities of float32 may lie on a border within rounding.
    dtype = torch.float64 if cache == "dllm_cache" else torch.float32
    alone = tokens(cache, dtype)
    assert tokens(cache, dtype, 4) == alone == tokens(cache, dtype, 3, backwards=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        few = tokens(cache, dtype, 2, count=2)
        assert few == {name: alone[name] for name in few}
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_call_gives_the_same_tokens(cache: str, dtype: torch.dtype) -> None:
    assert tokens(cache, dtype, 3, count=3) == tokens(cache, dtype, 3, count=3)


def test_half_precision_makes_no_promise_about_the_batch() -> None:
    """The option says so where it is set."""
    text = (ROOT / "conf" / "config.yaml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("batch_size: ")]
    assert "in half precision they may" in line


def test_the_page_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 12
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_line_of_the_page_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    bodies = [row for row in rows if not row.startswith(("| what", "|---"))]
    assert bodies and all("`tests/" in row for row in bodies), bodies
    assert set(CACHES) <= set(re.findall(r"\w+", " ".join(bodies)))
