"""The replay as one HTML page: nothing is loaded from anywhere, and no text of a model is markup.

Texts travel as JSON in a block that is not executed and reach the page as text nodes; the page's
own policy allows its one script and its one style sheet, by their hashes, and no request.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment

from dllm.report.replay.film import Film, as_json


_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def page(films: Sequence[Film]) -> str:
    """HTML of one film, or of two side by side."""
    texts = {name: _text(f"page.{name}") for name in ("html", "css", "js")}
    first = films[0]
    heading = " and ".join(dict.fromkeys(film.title for film in films))
    # Standard JSON knows no NaN, and ASCII no line separators that end a string.
    data = json.dumps([as_json(film) for film in films], allow_nan=False, separators=(",", ":"))
    return (
        Environment(autoescape=True)
        .from_string(texts["html"])
        .render(
            title=f"Replay: {heading}, sample {first.sample}",
            heading=heading,
            facts=f"{first.model} · {first.task} · sample {first.sample}",
            style=texts["css"],
            style_hash=_hash(texts["css"]),
            script=texts["js"],
            script_hash=_hash(texts["js"]),
            films=data.translate(_ESCAPES),
        )
    )


def _text(name: str) -> str:
    return resources.files("dllm.report.replay").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy spells it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
