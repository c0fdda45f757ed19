"""References and marks that a reader outside this repository can follow.

A section is cited together with its paper; what only the authors' own notes number ("trap 3") is no
citation. Marks of certainty are the words that docs/marks.md explains.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
LOOK_BACK = 60
"""Characters before a section's number in which its paper must be named."""

SECTION = re.compile(r"\b(?:section|sec\.|§)s? ?\d", re.IGNORECASE)
PAPER = re.compile(r"arXiv|paper", re.IGNORECASE)
FORBIDDEN = {
    "a numbered trap": re.compile(r"\btraps? [A-Z]?\d|(?<=\s)\([A-Z]\d{1,2}(?:, [A-Z]\d{1,2})*\)"),
    "notes that are not here": re.compile(
        r"\bSpecification:|\bof the (?:\w+ )?specification\b|\bspecification's\b|"
        r"\b(?:confidence_samplers|kv_caches|models\.md|metrics\.md|design\.md|style\.md)"
    ),
    "a mark of one letter": re.compile(r"(?<![\w\])\"'`])\[[AHIKOPRS](?:[,:;][^\]]*)?\]"),
}
KINDS = (".py", ".yaml", ".md")


def texts() -> Iterator[tuple[Path, str]]:
    for folder in ("dllm", "samplers", "scripts", "conf", "tests", "docs", "results/embedded"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in KINDS and path.name != Path(__file__).name:
                yield path.relative_to(ROOT), path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        yield path.relative_to(ROOT), path.read_text()


def dangling(text: str) -> list[str]:
    """What a reader could not follow, each with the words around it."""
    flat = " ".join(text.split())
    found = [
        f"{name}: {flat[max(0, hit.start() - 40) : hit.end() + 10]}"
        for name, form in FORBIDDEN.items()
        for hit in form.finditer(flat)
    ]
    for hit in SECTION.finditer(flat):
        before = flat[max(0, hit.start() - LOOK_BACK) : hit.start()]
        if not PAPER.search(before):
            found.append(f"a section without its paper: {before[-40:]}{hit.group()}")
    return found


def test_every_reference_can_be_followed() -> None:
    assert [(str(path), hit) for path, text in texts() for hit in dangling(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "decoded ones included (trap\nT2), to logits",
        "in float64 with one (T1).",
        "no cache. Specification: tdar",
        "metrics of the specification",
        "(kv_caches, worked example 2)",
        "about 0.80 (section 2)",
        "No table. Section 7.6.",
        "block [O].",
        "is the block's [S; that is inferred]",
    ],
)
def test_forms_that_dangle(text: str) -> None:
    assert len(dangling(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "(arXiv 2502.09992, section 2.3) [inferred]",
        "on one GPU (H100)",
        "of(T1) list[K]",
        "[second hand]",
    ],
)
def test_forms_that_can_be_followed(text: str) -> None:
    assert dangling(text) == []
