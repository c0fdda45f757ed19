"""What goes wrong while a grammar is read; the caller adds the option it came from."""


class GrammarError(ValueError):
    """The grammar, schema or regular expression says something that can't be used."""


class EmptyLanguage(GrammarError):
    """No text at all is valid."""


class Unspelled(GrammarError):
    """None of the valid texts is among those that a grammar spells; says which keyword."""
