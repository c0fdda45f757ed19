"""The page in a real browser: what it shows, its keys, its silence, and what a frame touches.

Shows the time of a frame with `python -m pytest tests/report/replay -k frame_time -s`.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from films import HOSTILE, eventful, film_of, long_trace

from dllm.report.replay.film import Film
from dllm.report.replay.page import page


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Root in a container has no sandbox of its own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Opened:
    """A page in the browser, with everything that it complained about or asked for."""

    tab: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def run(self, script: str) -> Any:
        return self.tab.evaluate(script)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def wait_until(self, condition: str) -> None:
        """The page's policy forbids the browser's own waiting for an expression."""
        self.run(
            "() => new Promise((done) => { const look = () => "
            f"({condition}) ? done() : setTimeout(look, 20); look(); }})"
        )

    @property
    def forward(self) -> int:
        return self.run("replay.forward()")

    def texts(self, panel: int = 0) -> list[str]:
        return self.run(
            f"[...document.querySelectorAll('.canvas')[{panel}].querySelectorAll('.cell')]"
            ".filter(c => !c.classList.contains('gone') && !c.classList.contains('masked'))"
            ".map(c => c.textContent)"
        )

    def names(self, position: int) -> set[str]:
        return set(self.run(f"document.getElementById('cell-0-{position}').className").split())


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def show(*films: Film, at: int = 0, **context: Any) -> Opened:
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(page(films), encoding="utf-8")
        contexts.append(browser.new_context(**context))
        tab = contexts[-1].new_page()
        shown = Opened(tab)
        tab.on("console", lambda message: shown.complaints.append(message.text))
        tab.on("pageerror", lambda error: shown.complaints.append(str(error)))
        tab.on("request", lambda request: shown.requests.append(request.url))
        tab.goto(f"{path.as_uri()}#{at}")
        return shown

    yield show
    for context in contexts:
        context.close()


def test_every_forward_without_a_complaint_or_a_request(opened) -> None:
    shown = opened(film_of(eventful()))
    texts = []
    for forward in range(7):
        assert shown.forward == forward
        texts.append(shown.texts())
        shown.press("ArrowRight")
    assert texts[:3] == [[], [], ["the", "sat"]]
    assert texts[3] == [HOSTILE[0], HOSTILE[1]]
    assert texts[4][0] == "the" and texts[4][-1] == "mat↵"
    assert texts[5][4:] == ["∎"] * 5 and texts[6] == texts[5][:7]
    assert shown.forward == 6
    assert shown.complaints == []
    assert len(shown.requests) == 1 and shown.requests[0].startswith("file://")


def test_hostile_texts_stay_texts(opened) -> None:
    shown = opened(film_of(eventful(), title=HOSTILE[0]), at=3)
    assert shown.run("window.owned") is None
    assert shown.run("document.querySelectorAll('main script, main img, main a').length") == 0
    assert (
        shown.run("document.getElementById('prompt').textContent") == f"Say it: {''.join(HOSTILE)}"
    )
    assert shown.run("document.querySelector('h1').textContent") == HOSTILE[0]
    shown.tab.hover("#cell-0-1")
    assert HOSTILE[0] in json.loads(shown.tab.inner_text("#card h3").partition(": ")[2])
    assert shown.run("window.owned") is None and shown.complaints == []


def test_cells_say_what_happened_to_them(opened) -> None:
    shown = opened(film_of(eventful()), at=2)
    assert {"fresh", "p7", "in-block"} <= shown.names(0)
    assert {"masked", "refused", "tried", "b2"} <= shown.names(1)
    assert {"fresh", "marked"} <= shown.names(2)
    assert "in-block" not in shown.names(4)
    shown.press("ArrowRight")
    assert {"remasked", "masked"} <= shown.names(0)
    assert {"fresh", "forced", "p0"} <= shown.names(1) and "edited" in shown.names(2)
    shown.press("ArrowRight")
    assert "near" in shown.names(3) and "near" not in shown.names(5)
    assert "px" in shown.names(3) and "inserted" in shown.names(4)
    assert "cache refresh" not in shown.tab.inner_text(".event")
    shown.press("ArrowLeft")
    told = shown.tab.inner_text(".event")
    assert "cache refresh" in told and "masked again 1 at 0" in told and "progress guard" in told


def test_keys_buttons_and_slider(opened) -> None:
    shown = opened(film_of(long_trace(128)))
    last = shown.run("replay.last")
    shown.press("End")
    assert shown.forward == last
    shown.press("Home", "PageDown", ".", ",", "ArrowLeft")
    assert shown.forward == 9
    shown.tab.click("#forth")
    shown.tab.click("#back")
    assert shown.forward == 9
    shown.tab.focus("#seek")
    shown.press("ArrowRight", "ArrowRight")
    assert shown.forward == 11
    assert shown.tab.get_attribute("#seek", "aria-valuetext") == f"forward 11 of {last}"
    shown.tab.evaluate("document.activeElement.blur()")
    shown.tab.select_option("#speed", "4")
    shown.tab.evaluate("document.activeElement.blur()")
    shown.press("Space")
    assert shown.tab.get_attribute("#play", "aria-label") == "Pause"
    shown.wait_until("replay.forward() > 12")
    shown.press("Space")
    assert shown.tab.get_attribute("#play", "aria-label") == "Play"
    paused = shown.forward
    shown.tab.select_option("#speed", "60")
    shown.tab.click("#play")
    shown.wait_until(f"replay.forward() == {last}")
    assert paused < last and shown.tab.get_attribute("#play", "aria-label") == "Play"
    assert shown.tab.inner_text("#said").startswith("Forward")
    box = shown.tab.locator(".map")
    box.click(position={"x": box.bounding_box()["width"] / 2 - 1, "y": 20})
    assert shown.forward == (last + 1) // 2
    assert shown.complaints == []


def test_alternatives_under_the_pointer_and_by_focus(opened) -> None:
    shown = opened(film_of(eventful()), at=2)
    shown.tab.hover("#cell-0-1")
    card = shown.tab.inner_text("#card")
    assert "position 1: masked" in card and "cat" in card and "40.0 %" in card
    assert "branch 2 (adopted): cat, worth 5.25" in card
    assert "tried, with their worth: “sat” 2, “cat” 5.25" in shown.tab.inner_text(".event")
    shown.tab.mouse.move(0, 0)
    shown.tab.wait_for_selector("#card", state="hidden")
    for _ in range(30):
        shown.press("Tab")
        if shown.run("document.activeElement.getAttribute('role')") == "listbox":
            break
    assert "position 1" in shown.tab.inner_text("#card h3")  # where the pointer was
    shown.press("ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowRight")
    assert shown.forward == 2  # inside the canvas the arrows go from token to token
    assert "position 2" in shown.tab.inner_text("#card h3")
    canvas = shown.tab.locator(".canvas")
    assert canvas.get_attribute("aria-activedescendant") == "cell-0-2"
    assert shown.tab.get_attribute("#cell-0-2", "aria-selected") == "true"
    assert "probability 55.0 %" in shown.tab.get_attribute("#cell-0-2", "aria-label")
    shown.press(".")
    assert shown.forward == 3 and "overwrote at forward 3" in shown.tab.inner_text("#card")
    shown.press("Escape")
    assert shown.tab.is_hidden("#card")


def test_without_alternatives_the_card_says_how_to_get_them(opened) -> None:
    trace = replace(eventful(), alternatives=0)
    for step in trace.steps:
        step.considered = None
    shown = opened(film_of(trace), at=2)
    shown.tab.hover("#cell-0-1")
    assert "decode with alternatives=5" in shown.tab.inner_text("#card")
    assert shown.tab.is_hidden("#predictions")


def test_two_samplers_move_together(opened) -> None:
    fast, slow = film_of(eventful(), "fast"), film_of(long_trace(64), "slow")
    shown = opened(fast, slow, at=2)
    assert [t.inner_text() for t in shown.tab.locator("main h2").all()] == ["fast", "slow"]
    assert len(shown.texts(0)) == 2 and 2 <= len(shown.texts(1)) <= 12
    shown.press("End")
    assert len(shown.texts(1)) == 64
    assert "Finished at forward 6" in shown.tab.locator(".event").first.inner_text()


def test_another_ending_starts_at_its_fork(opened) -> None:
    films = [replace(film_of(eventful()), fork=3) for _ in range(2)]
    shown = opened(*films)
    shown.tab.goto(shown.tab.url.partition("#")[0] + "?")
    assert shown.forward == 3 and shown.tab.locator(".fork").count() == 2


def test_colours_do_not_touch_the_cells(opened) -> None:
    shown = opened(film_of(eventful()), at=5, color_scheme="dark")
    fill = "getComputedStyle(document.getElementById('cell-0-0')).backgroundColor"
    before, names = shown.run(fill), shown.names(0)
    assert shown.run("document.documentElement.dataset.theme") == "dark"
    shown.press("c")
    assert shown.run(fill) != before and shown.names(0) == names
    assert shown.tab.get_attribute("button[data-colour=order]", "aria-pressed") == "true"
    shown.press("t", "p")
    assert shown.run("document.documentElement.dataset.theme") == "light"
    assert shown.run("document.body.dataset.predictions") == "off"
    # Not by colour alone: the bar under a token is as long as its probability is high.
    style = "getComputedStyle(document.getElementById('cell-0-{}')).getPropertyValue('--bar')"
    assert shown.run(style.format(0)) != shown.run(style.format(1))


def test_a_frame_of_2048_tokens_writes_only_what_changes(opened) -> None:
    trace = long_trace()
    shown = opened(film_of(trace))
    counts = shown.run(
        "Array.from({length: replay.last}, (_, k) => { replay.go(k + 1); return replay.touched() })"
    )
    assert shown.run("document.querySelectorAll('.cell').length") == 2048
    assert len(counts) == len(trace.steps)
    # At most the block that is left, the one that is entered, and no other cell of the 2,048.
    assert max(counts) <= 64 and sum(counts) / len(counts) < 32
    assert len(shown.texts()) == 2048


def test_frame_time_of_2048_tokens(opened, capsys) -> None:
    """Prints what a frame costs the page's thread, in its own processor time; none is asserted."""
    shown = opened(film_of(long_trace()))
    meter = shown.tab.context.new_cdp_session(shown.tab)
    meter.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> dict[str, float]:
        found = meter.send("Performance.getMetrics")["metrics"]
        return {one["name"]: one["value"] for one in found}

    before, frames = spent(), 200
    shown.run(
        f"""() => new Promise((done) => {{
          let k = 0;
          const tick = () => {{
            replay.go(++k);
            k < {frames} ? requestAnimationFrame(tick) : done();
          }};
          requestAnimationFrame(tick);
        }})"""
    )
    after = spent()
    assert shown.forward == frames
    parts = ("Script", "RecalcStyle", "Layout", "Task")
    cost = {part: 1e3 * (after[f"{part}Duration"] - before[f"{part}Duration"]) for part in parts}
    told = ", ".join(f"{part} {cost[part] / frames:.2f}" for part in parts)
    with capsys.disabled():
        print(f"\nms per frame of 2,048 tokens: {told}")
