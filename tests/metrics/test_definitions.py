"""Summary and comparison on samples whose numbers are known."""

from dataclasses import asdict

import pytest
from sample_results import sample

from dllm.metrics.definitions import Comparison, SampleResult, Summary


def worked_example() -> list[SampleResult]:
    """(Canvas, effective tokens, forwards, seconds) of three samples, every canvas committed."""
    numbers = [(256, 100, 20, 2.0), (256, 40, 10, 1.0), (256, 250, 90, 9.0)]
    return [
        sample(
            str(i),
            tokens=[5] * length,
            effective=effective,
            committed=length,
            forwards={"step": forwards},
            seconds=seconds,
            latency=seconds,
        )
        for i, (length, effective, forwards, seconds) in enumerate(numbers)
    ]


def test_the_worked_example() -> None:
    summary = Summary.of(worked_example())
    assert summary.tpf == pytest.approx(3.25)
    assert summary.tpf_macro == pytest.approx(3.926, abs=5e-4)
    assert summary.tpf_canvas == pytest.approx(6.4)
    assert summary.tokens_per_second == pytest.approx(32.5)
    assert summary.tokens_per_second_end_to_end == pytest.approx(32.5)  # no other seconds
    assert summary.nfe == pytest.approx(40) and summary.nfe_median == 20
    assert summary.effective == pytest.approx(130)
    assert summary.padding_share == pytest.approx(1 - 390 / 768)
    assert summary.latency == pytest.approx(4) and summary.latency_p50 == 2
    assert summary.latency_p95 == pytest.approx(2 + 0.9 * 7)


def test_forwards_count_whatever_their_kind() -> None:
    results = [
        sample("a", forwards={"step": 3, "refresh": 1}, aux_forwards=4, enfe=6.0),
        sample("b", forwards={"step": 1, "commit": 1}, enfe=2.0),
    ]
    assert results[0].nfe == 4
    summary = Summary.of(results)
    assert summary.nfe == 3
    assert summary.nfe_by_kind == {"commit": 0.5, "refresh": 0.5, "step": 2}
    assert summary.aux_forwards == 2
    assert summary.enfe == 4


def test_accuracy_by_task_and_failures() -> None:
    results = [
        sample("a", task="copy", correct=True),
        sample("b", task="copy", correct=False, failure="sample b: broken"),
        sample("c", task="sort", correct=True),
    ]
    summary = Summary.of(results)
    assert (summary.n, summary.correct, summary.failed) == (3, 2, 1)
    assert summary.accuracy == pytest.approx(2 / 3)
    assert summary.accuracy_low < 2 / 3 < summary.accuracy_high
    assert summary.accuracy_by_task == {"copy": 0.5, "sort": 1.0}


def test_a_sample_given_up_at_once_divides_nothing_by_zero() -> None:
    result = sample("a", forwards={}, effective=0, committed=0, failure="broken")
    summary = Summary.of([result])
    assert summary.tpf == summary.tpf_macro == summary.tpf_canvas == summary.padding_share == 0
    assert summary.vetoes_per_token is None
    assert Comparison.of([result], [result]).nfe_speedup is None


def test_a_sample_that_failed_improves_no_figure() -> None:
    base = [sample(name, forwards={"step": 8}, effective=4, tokens=[5] * 4) for name in "ab"]
    given_up = sample("b", forwards={"step": 1}, effective=4, tokens=[5] * 4, failure="given up")
    ours = [sample("a", forwards={"step": 4}, effective=4, tokens=[5] * 4), given_up]
    assert Comparison.of(ours, base).nfe_speedup == 2
    assert Comparison.of(base, ours).nfe_speedup == 0.5
    assert Comparison.of(ours, base).agreement == 0.5
    summary, alone = Summary.of(ours), Summary.of(ours[:1])
    assert summary.tpf == pytest.approx(4 / 5) and summary.tpf < alone.tpf
    assert summary.tpf_macro == alone.tpf_macro / 2
    assert summary.tpf_canvas < alone.tpf_canvas
    assert summary.tokens_per_second < alone.tokens_per_second
    assert Comparison.of([given_up], base[1:]).nfe_speedup is None


def test_comparison_pairs_by_id() -> None:
    base = [
        sample("a", forwards={"step": 8}, seconds=3.0, correct=True, tokens=[5] * 4),
        sample("b", forwards={"step": 8}, seconds=1.0, correct=False, tokens=[6] * 4),
    ]
    ours = [
        sample("b", forwards={"step": 3}, seconds=0.5, correct=True, tokens=[7] * 4),
        sample("a", forwards={"step": 1}, seconds=0.5, correct=True, tokens=[5] * 4),
    ]
    comparison = Comparison.of(ours, base)
    assert asdict(comparison) == {
        "nfe_speedup": 4.0,
        "agreement": 0.5,
        "mcnemar_p": 1.0,
    }


def test_forwards_of_a_verifier_are_no_gain() -> None:
    base = [sample("a", forwards={"step": 8})]
    ours = [sample("a", forwards={"step": 1}, other_forwards={"verifier/step": 2, "verifier/p": 1})]
    assert Comparison.of(ours, base).nfe_speedup == 2.0


def test_a_run_against_itself_gains_nothing() -> None:
    results = worked_example()
    assert asdict(Comparison.of(results, results)) == {
        "nfe_speedup": 1.0,
        "agreement": 1.0,
        "mcnemar_p": 1.0,
    }


def test_other_samples_are_no_baseline() -> None:
    with pytest.raises(ValueError, match="different samples"):
        Comparison.of([sample("a")], [sample("b")])


def test_a_table_row_is_flat() -> None:
    row = sample("a", forwards={"step": 2, "refresh": 1}).row()
    assert row["nfe"] == 3 and row["forwards"] == "step=2 refresh=1"
    assert "tokens" not in row
    assert all(isinstance(v, str | int | float | bool | None) for v in row.values())


def test_end_to_end_throughput_has_tokenising_and_grading_in_it() -> None:
    samples = [sample("a", seconds=1.0, other_seconds=0.5), sample("b", seconds=1.0)]
    summary = Summary.of(samples)
    assert summary.tokens_per_second == 3.0
    assert summary.tokens_per_second_end_to_end == pytest.approx(6 / 2.5)
