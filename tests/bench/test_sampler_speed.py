"""The bench of rules takes every sampler of conf/ or leaves it out; it stops at none."""

import pytest

from dllm.bench import samplers
from dllm.config import choices
from dllm.errors import ConfigError


def test_every_sampler_is_measured_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VOCABULARY": 64, "MASK": 60, "EOS": 61}.items():
        monkeypatch.setattr(samplers, name, value)
    monkeypatch.setattr(samplers, "FAVOURITES", (10, 50))
    monkeypatch.setattr(samplers, "REPEATS", 1)
    sheet, known = samplers.sheet([]), choices("sampler")
    measured = {line.name for line in sheet.lines}
    assert {"threshold", "localleap", "credit", "wino"} <= measured < set(known)
    assert not measured & {"deer", "prompt_lookup", "oracle", "diffusion_gemma"}
    (text,) = sheet.text
    assert text.endswith(f": {', '.join(name for name in known if name not in measured)}.")


def test_a_named_sampler_that_can_not_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="freedave is not measured: sampler=freedave lays out"):
        samplers.sheet(["threshold", "freedave"])
