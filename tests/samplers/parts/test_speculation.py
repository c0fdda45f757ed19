"""Exact enumeration: whatever is drafted, the target's distribution comes out."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from samplers.parts.speculation import acceptance, accepted, drawn, residual


VOCABULARY, LENGTH = 3, 4
EOS = 2

Prefix = tuple[int, ...]
Model = Callable[[Prefix, int], Tensor]
"""Probabilities of the token `ahead` positions behind a prefix (0 = the next one)."""


def table(seed: int, zeros: bool = False) -> Model:
    """A random distribution for every prefix and distance."""

    @cache
    def rows(prefix: Prefix, ahead: int) -> Tensor:
        name = hash((seed, prefix, ahead)) % 2**31
        generator = torch.Generator().manual_seed(name)
        weights = torch.rand(VOCABULARY, generator=generator, dtype=torch.float64) ** 2
        if zeros:
            weights[int(torch.randint(VOCABULARY, (), generator=generator))] = 0
        return weights / weights.sum()

    return rows


def uniform(prefix: Prefix, ahead: int) -> Tensor:
    return torch.full((VOCABULARY,), 1 / VOCABULARY, dtype=torch.float64)


def one_hot(token: int) -> Tensor:
    return torch.eye(VOCABULARY, dtype=torch.float64)[token]


TARGET = table(1)


def worst(prefix: Prefix, ahead: int) -> Tensor:
    """Always drafts what the target wants least."""
    return one_hot(int(TARGET(prefix, 0).argmin()))


def lengthened(joint: dict[Prefix, float]) -> dict[Prefix, float]:
    """Nothing but end tokens behind an end token, cut to the length compared."""
    out: dict[Prefix, float] = defaultdict(float)
    for tokens, weight in joint.items():
        if EOS in tokens:
            tokens = tokens[: tokens.index(EOS) + 1] + (EOS,) * LENGTH
        out[tokens[:LENGTH]] += weight
    return out


def autoregressive(target: Model) -> dict[Prefix, float]:
    joint: dict[Prefix, float] = {(): 1.0}
    for _ in range(LENGTH):
        joint = {
            (*prefix, token): weight * float(target(prefix, 0)[token])
            for prefix, weight in joint.items()
            for token in range(VOCABULARY)
        }
    return joint


def verified(
    target: Model, prefix: Prefix, q: Tensor, drafts: Prefix, bonus: bool, replacement: Callable
) -> Iterator[tuple[Prefix, int, float]]:
    """Outcomes of one verification: new prefix, drafts used up, probability."""
    rows = len(drafts) + bonus
    p = torch.stack([target(prefix + drafts[:i], 0) for i in range(rows)])
    q = torch.cat((q, torch.zeros(1, VOCABULARY, dtype=torch.float64)))[:rows]
    drafted = torch.tensor([*drafts, -1])[:rows]
    alpha = acceptance(p, q, drafted)
    for count in range(rows + 1):
        # The draws of U[0, 1) that lead to `count` accepted drafts all behave like these.
        chance = alpha[:count].prod() * (1 if count == rows else 1 - alpha[count])
        if chance == 0:
            continue
        u = torch.cat((torch.zeros(count), torch.ones(rows - count))).double()
        assert accepted(p[None], q[None], drafted[None], u[None]).tolist() == [count]
        stays = prefix + drafts[:count]
        if count == rows:
            yield stays, count, float(chance)
            continue
        following = replacement(p[count], q[count])
        for token in range(VOCABULARY):
            yield (*stays, token), count + 1, float(chance * following[token])


def speculative(
    target: Model,
    drafter: Model,
    k: int,
    bonus: bool = True,
    go_on: bool = False,
    replacement: Callable = residual,
    looked_up: Model | None = None,
) -> dict[Prefix, float]:
    """Joint distribution of the first tokens of draft and verification, by all paths.

    `go_on`: the drafts behind a rejected one are verified as well. `looked_up`: another drafter
    that q is read from (a fault).
    """
    finished: dict[Prefix, float] = defaultdict(float)

    def follow(prefix: Prefix, q: Tensor, drafts: Prefix, weight: float) -> None:
        if weight == 0:
            return
        if len(prefix) >= LENGTH or EOS in prefix:
            finished[prefix] += weight
            return
        if drafts:
            for after, used, chance in verified(target, prefix, q, drafts, bonus, replacement):
                left = drafts[used:] if go_on else ()
                follow(after, q[used:], left, weight * chance)
            return
        q = torch.stack([drafter(prefix, ahead) for ahead in range(k)])
        for drafts in itertools.product(range(VOCABULARY), repeat=k):
            chance = float(torch.stack([q[i, t] for i, t in enumerate(drafts)]).prod())
            asked = q
            if looked_up is not None:
                asked = torch.stack([looked_up(prefix + drafts[:i], 0) for i in range(k)])
            follow(prefix, asked, drafts, weight * chance)

    follow((), torch.zeros(0, VOCABULARY), (), 1.0)
    return finished


def variation(ours: dict[Prefix, float], theirs: dict[Prefix, float]) -> float:
    ours, theirs = lengthened(ours), lengthened(theirs)
    return sum(abs(ours.get(t, 0.0) - theirs.get(t, 0.0)) for t in ours.keys() | theirs) / 2


@pytest.mark.parametrize("k", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bonus", [True, False], ids=["bonus", "without"])
@pytest.mark.parametrize("go_on", [False, True], ids=["break", "continue"])
@pytest.mark.parametrize(
    "drafter",
    [table(2), table(3, zeros=True), uniform, worst, TARGET],
    ids=["other", "zeros", "uniform", "worst", "target"],
)
def test_the_output_is_the_target_s(drafter: Model, k: int, bonus: bool, go_on: bool) -> None:
    ours = speculative(TARGET, drafter, k, bonus, go_on)
    assert sum(ours.values()) == pytest.approx(1, abs=1e-12)
    assert variation(ours, autoregressive(TARGET)) < 1e-12


def test_more_drafts_than_tokens_and_a_target_with_zeros() -> None:
    target = table(4, zeros=True)
    for drafter in (table(2), table(5, zeros=True)):
        ours = speculative(target, drafter, LENGTH + 1)
        assert variation(ours, autoregressive(target)) < 1e-12


def test_faulty_rules_are_caught() -> None:
    """The replacement drawn from p (the letter of the paper's Algorithm 1), and q of a drafter that
    is asked again on the growing prefix (its project page)."""
    exact, drafter = autoregressive(TARGET), table(2)
    from_p = speculative(TARGET, drafter, 2, replacement=lambda p, q: p)
    asked_again = speculative(TARGET, drafter, 2, looked_up=drafter)
    assert variation(from_p, exact) > 0.05
    assert variation(asked_again, exact) > 0.05


def test_a_draft_is_accepted_with_the_mass_that_both_share() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 50, 7, generator=generator, dtype=torch.float64).softmax(-1)
    tokens = torch.arange(7).expand(50, 7)
    alpha = acceptance(
        p[:, None].expand(-1, 7, -1), q[:, None].expand(-1, 7, -1), tokens
    )  # of every token
    mass = (q * alpha).sum(-1)
    torch.testing.assert_close(mass, torch.minimum(p, q).sum(-1))
    torch.testing.assert_close(mass, 1 - (p - q).abs().sum(-1) / 2)


def rows(*probabilities: tuple[float, ...]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64)


def test_worked_examples() -> None:
    p, q = rows((0.6, 0.3, 0.1)), rows((0.2, 0.5, 0.3))
    alpha = acceptance(p.expand(3, 3), q.expand(3, 3), torch.arange(3))
    torch.testing.assert_close(alpha, rows((1, 0.6, 1 / 3))[0])
    torch.testing.assert_close(residual(p, q), rows((1, 0, 0)))
    # A one-hot draft, although the target also wants what is never drafted.
    p, q = rows((0.5, 0.5, 0)), rows((0, 1, 0))
    assert acceptance(p, q, torch.tensor([1])).item() == 0.5
    assert residual(p, q).tolist() == [[1, 0, 0]]
    # Equal distributions leave nothing over.
    p = rows((0.7, 0.2, 0.1))
    assert acceptance(p, p, torch.tensor([2])).item() == 1
    assert torch.equal(residual(p, p), p)


@pytest.mark.parametrize(
    ("drafts", "count", "following"), [((5, 9, 9, 2), 2, 4), ((5, 9, 4, 2), 4, 7)]
)
def test_one_hot_rows_are_greedy_decoding(drafts: Prefix, count: int, following: int) -> None:
    eye = torch.eye(10, dtype=torch.float64)
    p, drafted = eye[[5, 9, 4, 2, 7]], torch.tensor([*drafts, -1])
    q = torch.cat((eye[list(drafts)], torch.zeros(1, 10, dtype=torch.float64)))
    # No draw changes it, the smallest possible one included.
    for u in (0.0, 0.5, 1 - 2**-53):
        draws = torch.full((1, 5), u, dtype=torch.float64)
        assert accepted(p[None], q[None], drafted[None], draws).tolist() == [count]
    assert residual(p[count], q[count]).argmax() == following


def test_what_is_drawn_has_the_probability_and_never_none() -> None:
    p = rows((0, 0.25, 0, 0.5, 0.25, 0))[0]
    draws = torch.arange(0, 1, 1 / 64, dtype=torch.float64)
    counts = drawn(p.expand(64, 6), draws).bincount(minlength=6)
    assert counts.tolist() == [0, 16, 0, 32, 16, 0]
    edge = torch.tensor([0, 1 - 2**-53, 1], dtype=torch.float64)
    odd = rows((0, 0.1, 0.7, 0.1, 0)).expand(3, 5)
    assert drawn(odd, edge).tolist() == [1, 3, 3]


def test_expected_tokens_per_cycle() -> None:
    """(1 - a^(k+1)) / (1 - a) with a constant acceptance a, from the draws themselves."""
    p, q = rows((0.8, 0.2)), rows((1.0, 0.0))
    for k, expected in ((4, 3.3616), (8, 4.3289), (16, 4.8874)):
        alpha = acceptance(p.expand(k, 2), q.expand(k, 2), torch.zeros(k, dtype=torch.int64))
        assert 1 + alpha.cumprod(0).sum().item() == pytest.approx(expected, abs=5e-5)
