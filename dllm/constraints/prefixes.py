"""Prefixes of tokens from left to right, by llguidance: is one viable, what may come next."""

from __future__ import annotations

from collections.abc import Sequence

import llguidance
import numpy as np

from dllm.clock import Deadline
from dllm.constraints.errors import GrammarError
from dllm.constraints.trial import tried
from dllm.models.tokenizers import Tokenizer


def try_masks(guidance: str, tokenizer: Tokenizer, ends: Sequence[int], deadline: Deadline) -> None:
    """Raises `Undecided` for a grammar whose masks are not computed at the deadline: where a lexeme
    may go on with what the next one has to begin with, llguidance never comes to an end."""
    text = tokenizer.base.backend_tokenizer.to_str()
    tried(deadline, kind="guidance", text=guidance, tokenizer=text, end=ends[0])


class PrefixParser:
    """One language on one tokenizer's tokens; asked about whole prefixes, remembers nothing."""

    def __init__(
        self, guidance: str, tokenizer: Tokenizer, ends: Sequence[int], begun: str
    ) -> None:
        """`guidance` is a grammar in llguidance's notation; `begun` stands before all prefixes.

        Raises `GrammarError` for a grammar that it refuses or whose answers don't begin like this.
        """
        text = tokenizer.base.backend_tokenizer.to_str()
        known = llguidance.LLTokenizer(text, eos_token=ends[0])
        self._fresh = llguidance.LLMatcher(known, guidance, log_level=0)
        if self._fresh.is_error():
            raise GrammarError(str(self._fresh.get_error()).strip().splitlines()[0])
        ids = known.tokenize_str(begun)
        if self._fresh.try_consume_tokens(ids) != len(ids):
            raise GrammarError(f"its parser takes no answer that begins with {begun!r}")

    def viable(self, prefix: Sequence[int]) -> bool:
        """Whether an answer can begin like this, as far as the lexer sees."""
        return self._fresh.validate_tokens(list(prefix)) == len(prefix)

    def accepting(self, prefix: Sequence[int]) -> bool:
        """Whether this is a whole answer."""
        return self._after(prefix).is_accepting()

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Ids that may follow, as a mask over the tokenizer's ids."""
        bits = np.frombuffer(self._after(prefix).compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little").astype(bool)

    def _after(self, prefix: Sequence[int]) -> llguidance.LLMatcher:
        matcher = self._fresh.deep_copy()
        matcher.try_consume_tokens(list(prefix))
        return matcher
