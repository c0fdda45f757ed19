"""Texts of models, data and options on their way to a terminal or a page."""

from pathlib import Path


def printable(text: str) -> str:
    """The text without characters that a terminal would obey or can't show; lines stay lines."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def public(path: str | Path) -> str:
    """A path as a page for others names it: a full one from the working folder on, or its last part
    alone, without the user's folders above."""
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
