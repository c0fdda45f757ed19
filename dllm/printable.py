"""Texts of models, data and options on their way to a terminal."""


def printable(text: str) -> str:
    """The text without characters that a terminal would obey or can't show; lines stay lines."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
