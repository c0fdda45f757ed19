"""The opening forward of a block commits the block's first position alone."""

from scripted import built
from written import commits, rule


def test_only_where_the_first_position_is_masked() -> None:
    opening = built(
        "sampler=opening", "sampler.base.threshold=0.9", "sampler.base.region.block_length=4"
    )
    rows = [0.3, 0.95, 0.5, 0.2], [None, 0.95, 0.92, 0.2]
    assert commits(opening, *rows) == [{0}, {1, 2}]
    assert commits(opening, *rows, step=1) == [{1}, {1, 2}]
    assert commits(rule("threshold", threshold=0.9), *rows) == [{1}, {1, 2}]
