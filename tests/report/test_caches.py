"""The page of caches: every cell is a legal run, and what a cell says."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_decoding import SPEC as SMALL

from dllm.config import build, compose
from dllm.engine.legality import refusals
from dllm.errors import ConfigError
from dllm.models.hub import EMBEDDED
from dllm.models.loading import dummy_model, save_model
from dllm.report.caches import CHAPTERS, Chapter, caches, row


CASES = [(name, *case) for name, chapter in CHAPTERS.items() for case in chapter.cases()]
SPEC = replace(SMALL, vocab_size=854, n_layers=1, max_positions=256)
CAUSAL = replace(SPEC, family="wedlm", attention="causal")
SPECS = {
    "full": SPEC,
    "blocks": replace(SPEC, family="sdar", attention="block_causal", block_size=8, qk_norm=True),
    "causal": CAUSAL,
    "next token": replace(CAUSAL, logit_shift=1),
}
METRICS: dict[str, Any] = {
    "accuracy": 0.5,
    "accuracy_low": 0.4,
    "accuracy_high": 0.6,
    "nfe": 10.0,
    "nfe_by_kind": {"refresh": 4.0, "step": 6.0},
    "rows_per_token": 12.34,
    "tokens_per_second": 100.0,
    "stale_share": 0.125,
    "audited": 0,
}


@pytest.mark.parametrize(("chapter", "sampler", "cache", "options"), CASES)
def test_every_cell_is_legal(chapter: str, sampler: str, cache: str, options: list[str]) -> None:
    config = compose(options)
    rule, policy = build(config.sampler, "sampler"), build(config.cache, "cache")
    rule.validate(config.gen_length)
    assert refusals(rule, policy, SPECS[chapter], config.batch_size) == []
    assert (cache == "none") == (not policy.stores)


def test_a_cell() -> None:
    audited = {**METRICS, "audited": 7, "audit_kl": 0.0123, "audit_changed": 0.25}
    found = row("localleap", "dual", METRICS, audited)
    assert found == (
        "| localleap | dual | 0.500 (0.400 to 0.600) | 10.0 (refresh 4.0, step 6.0) | 12.3 | 10.0 "
        "| 12.5 % | 1.2e-02 | 25.0 % |"
    )
    assert row("sdar", "block", METRICS, METRICS).endswith("| 10.0 | 12.5 % |  |  |")
    nothing = {**METRICS, "tokens_per_second": 0.0}
    assert row("x", "none", nothing, nothing).endswith("| 12.3 |  |  |  |  |")


def shrunk(folder: Path, name: str) -> Chapter:
    """The chapter on a random model, with its first sampler only."""
    tokenizer = CHAPTERS[name].model[0].removeprefix("model=").removesuffix("-ar")
    path = folder / name.replace(" ", "_")
    path.mkdir()
    save_model(dummy_model(SPECS[name]), path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED / tokenizer / file, path)
    model = ["model=checkpoint", f"model.path={path}", "model.dtype=float32", "model.device=cpu"]
    if SPECS[name].logit_shift:
        model.append("+model.logit_shift=1")
    first = next(iter(CHAPTERS[name].samplers))
    samplers: Mapping[str, Any] = {first: CHAPTERS[name].samplers[first]}
    return replace(CHAPTERS[name], model=model, samplers=samplers, pairs={})


def test_the_page_of_block_causal_and_causal_models(tmp_path: Path) -> None:
    chapters = {name: shrunk(tmp_path, name) for name in ("blocks", "causal", "next token")}
    missing = ["model=checkpoint", f"model.path={tmp_path / 'nowhere'}"]
    chapters["missing"] = replace(chapters["causal"], title="Missing", model=missing)
    run = [f"output={tmp_path / 'runs'}", "gen_length=16", "batch_size=2"]
    caches(tmp_path / "caches.md", 2, tasks=["listops"], chapters=chapters, run=run)
    text = (tmp_path / "caches.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and " to " in line]
    cells = [[cell.strip() for cell in line.split("|")] for line in rows]
    found = {(line[1], line[2]): line for line in cells}
    exact = ("block (SDAR)", "block (TDAR)", "block (merged)", "causal")
    assert {cache for _, cache in found} == {"none", *exact}
    for (sampler, cache), line in found.items():
        plain = found[sampler, "none"]
        assert line[3] == plain[3]  # an exact cache changes no answer
        if cache != "none":
            assert line[7] == "0.0 %"
            assert float(line[5]) < float(plain[5])
    assert text.rstrip().endswith("nothing was measured.")


def test_unknown_sampler(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--samplers 'luck' is not one of .*localleap"):
        caches(tmp_path / "x.md", 2, ["luck"])
