"""The two passes that collect filter training data (learn2pd section 3.5).

First the reference answers: one token per step. Then the oracle over the same prompts from an
all-mask canvas, recorded at every forward; each block starts from the reference's prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dllm.cache.none import NoCache
from dllm.canvas import Prompt
from dllm.errors import RunError
from dllm.loop import Decoder
from dllm.models.predictor import Predictor
from dllm.outcome import Outcome
from dllm.sampler import Sampler
from dllm.training.records import Record


@dataclass(frozen=True)
class Collector:
    predictor: Predictor
    baseline: Sampler
    """Makes the reference answers."""
    oracle: Callable[[Callable[[Record], None]], Sampler]
    """The oracle that hands its records to the given function."""
    batch_size: int

    def references(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts with the model's own answers."""
        outcomes = self._decode(self.baseline, prompts)
        answers = {outcome.sample_id: outcome.tokens for outcome in outcomes}
        return [replace(prompt, reference=answers[prompt.sample_id]) for prompt in prompts]

    def records(self, prompts: Sequence[Prompt]) -> tuple[list[Record], list[Outcome]]:
        """Records of prompts with references, sample by sample in their order, and the answers."""
        found: dict[str, list[Record]] = {prompt.sample_id: [] for prompt in prompts}
        oracle = self.oracle(lambda record: found[record.sample_id].append(record))
        outcomes = self._decode(oracle, prompts)
        return [record for records in found.values() for record in records], outcomes

    def _decode(self, sampler: Sampler, prompts: Sequence[Prompt]) -> list[Outcome]:
        decoder = Decoder(self.predictor, sampler, NoCache(), batch_size=self.batch_size)
        outcomes = list(decoder.decode(prompts))
        for outcome in outcomes:
            if outcome.failure is not None:
                raise RunError(outcome.failure)
        return outcomes
