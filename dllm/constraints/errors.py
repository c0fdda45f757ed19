"""What goes wrong while a grammar is read; the caller adds the option it came from."""

HEAD, TAIL = 300, 150
"""Characters of a message that are shown: what it quotes may be as long as a schema."""


class GrammarError(ValueError):
    """The grammar, schema or regular expression says something that can't be used."""

    def __init__(self, message: str) -> None:
        if len(message) > HEAD + TAIL:
            message = f"{message[:HEAD]} ... {message[-TAIL:]}"
        super().__init__(message)


class EmptyLanguage(GrammarError):
    """No text at all is valid."""


class Unspelled(GrammarError):
    """None of the valid texts is among those that a grammar spells; says which keyword."""
