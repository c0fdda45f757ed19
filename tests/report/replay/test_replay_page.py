"""What the page's file holds, read without a browser."""

import json
import re

import pytest
from films import HOSTILE, eventful, film_of

from dllm.report.replay.film import as_json
from dllm.report.replay.page import page


@pytest.fixture(scope="module")
def html() -> str:
    return page([film_of(eventful(), title=HOSTILE[0])])


def test_no_text_of_a_model_is_markup(html: str) -> None:
    for text in HOSTILE[:4]:
        assert text not in html
    (data,) = re.findall(r'<script type="application/json" id="films">(.*?)</script>', html, re.S)
    assert not set("<>&\u2028") & set(data) and data.isascii()
    assert json.loads(data) == json.loads(json.dumps([as_json(film_of(eventful(), HOSTILE[0]))]))


def test_it_asks_for_nothing(html: str) -> None:
    assert "default-src 'none'" in html
    assert not re.search(
        r"""(?:src|href)\s*=\s*["']?(?!#)[^"'\s>]""", html.partition('id="films"')[0]
    )
    assert "url(" not in html and "@import" not in html and "fetch(" not in html
