"""The garbage collector during checks."""

import gc

import pytest

from dllm.constraints.collection import uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_during_a_check_and_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ValueError), uncollected():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
