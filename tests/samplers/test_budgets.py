"""What a rule implies about the probabilities of the tokens that it commits in a round."""

import pytest
from tiny_decoding import sampler

from dllm.metrics.bits import Budget


CREDIT, CLEAN = "sampler/logits_transform=credit", "sampler.last_rank_quirk=false"
LINEAR = ["+schedule@sampler.threshold=linear", "sampler.threshold.start=0.9"]


@pytest.mark.parametrize(
    ("options", "floor"),
    [
        (["sampler=threshold", "sampler.threshold=0.7"], 0.7),
        (["sampler=threshold", *LINEAR, "sampler.threshold.end=0.6"], 0.6),
        (["sampler=threshold", CREDIT], None),
        (["sampler=localleap", "sampler.relaxed_threshold=0.6"], 0.6),
        (["sampler=localleap", "sampler.relaxed_threshold=0.5", *LINEAR], 0.5),
        (["sampler=localleap", CREDIT], None),
        (["sampler=factor", "sampler.factor=0.6", CLEAN], 0.7),
        (["sampler=factor", "sampler.factor=0.6"], None),
        (["sampler=factor", "sampler.factor=0.6", CLEAN, CREDIT], None),
        (["sampler=low_confidence"], None),
    ],
)
def test_what_rules_imply(options: list[str], floor: float | None) -> None:
    """The least confidence of what is committed by the rule; None where a token may have any."""
    budget: Budget | None = sampler(*options).budget()
    assert (budget is None) == (floor is None)
    if budget is not None:
        assert budget.floor == pytest.approx(floor)
