"""The report's page in a real browser: its tables are sorted by keyboard, it asks for nothing."""

import shutil
from pathlib import Path

import pytest
from written_runs import answers, write_run

from scripts.report import main


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_table_is_sorted_by_keyboard(tmp_path: Path) -> None:
    for sampler, forwards in (("threshold", 4), ("low_confidence", 32), ("localleap", 9)):
        write_run(tmp_path, sampler, answers([True] * 3, forwards))
    output = tmp_path / "page.html"
    assert main([str(tmp_path), "--output", str(output)]) == 0
    complaints, requests = [], []
    with sync_api.sync_playwright() as playwright:
        # Root in a container has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(output.as_uri())

        def column(name: str) -> list[str]:
            return tab.evaluate(
                "name => { const table = document.querySelector('table');"
                "const at = [...table.tHead.rows[0].cells].findIndex(c => c.textContent == name);"
                "return [...table.tBodies[0].rows].map(row => row.cells[at].textContent); }",
                name,
            )

        focus = (
            "[...document.querySelectorAll('th button')].find(b => b.textContent == 'NFE').focus()"
        )
        tab.evaluate(focus)
        tab.keyboard.press("Enter")
        assert column("NFE") == ["4.00", "9.00", "32.00"]  # as numbers, not as text
        assert column("run") == ["threshold", "localleap", "low_confidence"]
        tab.keyboard.press("Space")
        assert column("NFE") == ["32.00", "9.00", "4.00"]
        assert tab.evaluate("document.querySelectorAll('[aria-sort=descending]').length") == 1
        browser.close()
    assert complaints == [] and requests == [output.as_uri()]
