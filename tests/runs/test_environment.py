"""What a run notes about where it was made."""

import pytest

from dllm.runs import environment


def test_a_package_without_metadata_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "no-such-package"))
    found = environment.describe("cpu")
    assert found["no-such-package"] is None and found["torch"]
