"""The bench of rules takes every sampler of conf/ or leaves it out; it stops at none."""

import pytest

from dllm.bench import samplers
from dllm.config import choices


def test_every_sampler_is_measured_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VOCABULARY": 64, "MASK": 60, "EOS": 61}.items():
        monkeypatch.setattr(samplers, name, value)
    monkeypatch.setattr(samplers, "FAVOURITES", (10, 50))
    known = choices("sampler")
    measured = {row.name for row in samplers.measure(known, repeats=1)}
    assert {"threshold", "localleap", "credit", "wino"} <= measured < set(known)
    assert not measured & {"deer", "prompt_lookup", "oracle", "diffusion_gemma"}
