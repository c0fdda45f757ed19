"""ParallelBench's metrics: worked examples, scores as the authors' functions give them."""

import pytest

from dllm.tasks.parallelbench.metrics import METRICS, Score


LABEL = '["Ann Lee", "Bob Ray", "Cy Fox"]'
ITEMS = ["Ann Lee", "Bob Ray", "Cy Fox"]


def scored(metric: str, output: str, label: object) -> tuple[bool, bool]:
    score = METRICS[metric](output, label)
    assert isinstance(score, Score)
    return score.lenient, score.strict


@pytest.mark.parametrize(
    ("output", "lenient", "strict"),
    [
        (LABEL, True, True),
        ("Ann Lee, Bob Ray, Cy Fox", True, False),
        ('["Ann Lee", "Bob Ray", "Cy Fox"', True, False),
        ('["Ann Lee","Bob Ray","Cy Fox"]', True, False),
        ("['Ann Lee', 'Bob Ray', 'Cy Fox']", False, False),
        (f'["Cy Fox"] is wrong, {LABEL} is it.', True, True),
        (f"[{LABEL}]", True, True),
        ('["Ann Lee",\n"Bob Ray", "Cy Fox"]', False, False),  # the line break belongs to Bob
        ('["Ann Lee", "Bob Ray", "Cy Fox", ]', True, False),
        ('["Ann Lee", "Bob Ray", "Cy Fox", ""]', False, False),  # an empty name is a name
        ('["Ann Lee", "Bob Ray", "Cy "Fox"]', False, False),
        ("", False, False),
        (" \n\t", False, False),
        (f"```json\n{LABEL}\n```", True, True),
        (f"{LABEL}\n{LABEL}", True, True),
        (f"{LABEL} []", False, False),  # the last list counts, an empty one too
        (f"{LABEL[:-1]}, ]", True, False),
        (LABEL.upper(), False, False),
        (LABEL.replace('"', "“"), False, False),
        (LABEL.replace(" ", "\u00a0"), False, False),  # no blank that is stripped
        (LABEL.replace("[", "(").replace("]", ")"), False, False),
        ("[Ann Lee,, Bob Ray,Cy Fox]", True, False),
        ("Ann Lee, Bob Ray, Cy Fox] and more", True, False),
    ],
)
def test_list_match(output: str, lenient: bool, strict: bool) -> None:
    assert scored("list_match_score", output, LABEL) == (lenient, strict)


def listed(*names: str) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


@pytest.mark.parametrize(
    ("names", "right"),
    [
        (("Bob Ray", "Ann Lee", "Cy Fox"), True),
        (("Ann Lee", "Bob Ray", "Cy Fox"), False),
        (("Ann Ray", "Bob Lee", "Cy Fox"), False),
        (("Ann Lee", "Ann Lee", "Bob Ray"), False),
    ],
)
def test_shuffle(names: tuple[str, ...], right: bool) -> None:
    assert scored("list_shuffle_score", listed(*names), {"input": ITEMS}) == (right, right)


@pytest.mark.parametrize(
    ("metric", "names", "right"),
    [
        ("insert", ("Zed Poe", "Ann Lee", "Bob Ray", "Cy Fox"), True),
        ("insert", ("Ann Lee", "Bob Ray", "Cy Fox", "Zed Poe"), True),
        ("insert", ("Zed Poe", "Ann Lee", "Bob Ray", "Cy Fox", "Zed Poe"), False),
        ("insert", ("Ann Lee", "Bob Ray", "Cy Fox"), False),
        ("remove", ("Ann Lee", "Cy Fox"), True),
        ("remove", ("Cy Fox", "Ann Lee"), False),
        ("remove", ("Ann Lee", "Zed Poe"), False),
        ("remove", ("Ann Lee", "Bob Ray", "Cy Fox"), False),
        ("replace", ("Ann Lee", "Zed Poe", "Cy Fox"), True),
        ("replace", ("Zed Poe", "Zed Poe", "Cy Fox"), False),
        ("replace", ("Zed Poe", "Cy Fox", "Bob Ray"), False),
        ("replace", ("Ann Lee", "Bob Ray"), False),
    ],
)
def test_random_positions(metric: str, names: tuple[str, ...], right: bool) -> None:
    label = {"input": ITEMS, "word": "Zed Poe"}
    assert scored(f"list_random_{metric}_score", listed(*names), label) == (right, right)


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("header\nA, B\nB, A\nA,B", True),
        ("A,B\nA,B", False),
        ("A B\nB A", False),
        ("A,B", False),
        ("", False),
        ("```csv\nA,B\nB,A\n```", True),
        ("a,b\nb,a", False),
        ("A,B,\nB,A,", False),  # an empty cell is no symbol
        ("A,B,A\nB,A", True),  # a row that repeats a symbol still counts, cut to the shortest
    ],
)
def test_latin_square(output: str, right: bool) -> None:
    assert scored("latin_square_score", output, {"symbols": ["A", "B"]}) == (right, right)


@pytest.mark.parametrize(
    ("output", "lenient", "strict"),
    [
        ("1342\n2431\n4123\n3214", True, True),
        ("\n1342\n  2431\n\n4123\n3214\n", True, True),
        ("1 3 4 2\n2,4,3,1\n4123\n3214", True, False),
        ("Here:\n1342\n2431\n4123\n3214", True, False),
        ("1342\n2431\n4123\n3214\n1342", False, False),
        ("1342\n2431\n4123", False, False),
        ("```\n1342\n2431\n4123\n3214\n```", True, False),
        ("1342 2431 4123 3214", False, False),
        ("", False, False),
        ("|1|3|4|2|\n|2|4|3|1|\n|4|1|2|3|\n|3|2|1|4|", True, False),
        ("2431\n1342\n4123\n3214", False, False),
    ],
)
def test_sudoku(output: str, lenient: bool, strict: bool) -> None:
    assert scored("sudoku_score", output, "1342\n2431\n4123\n3214") == (lenient, strict)


@pytest.mark.parametrize(("output", "unparsed"), [("", True), (" \n", True), ("[]", False)])
def test_an_empty_output_is_counted_apart(output: str, unparsed: bool) -> None:
    grade = METRICS["list_match_score"](output, LABEL).grade(output)
    assert (grade.correct, grade.unparsed) == (False, unparsed)
