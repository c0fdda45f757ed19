"""The two passes that collect filter training data (Learn2PD).

First the reference answers: one token per step. Then the oracle over the same prompts from an
all-mask canvas, recorded at every forward; each block starts from the reference's prefix.

What is recorded of a position is its confidence (LLaDA) or, as for Dream, its negative entropy, 0
where it is decided, and there the label is that of the token which stands there. Dream's own passes
follow its time schedule and draw the order (alg_temp 0.1); here both are one token per step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dllm.cache.none import NoCache
from dllm.engine.loop import Decoder
from dllm.errors import RunError
from dllm.forward.predictor import Predictor
from dllm.models.filter import Feature
from dllm.step.canvas import Prompt
from dllm.step.outcome import Outcome
from dllm.step.prediction import View
from dllm.step.sampler import Sampler
from dllm.step.state import SamplerState
from dllm.training.records import Record
from samplers.learn2pd import negative_entropy
from samplers.oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class RecordingOracle(Oracle):
    """The oracle that hands out what a filter is trained on, once per forward."""

    sink: Callable[[Record], None]
    feature: Feature

    def observe(self, view: View, state: SamplerState) -> None:
        super().observe(view, state)
        at = view.positions.clamp(min=0)
        proposals = state["proposed"].gather(1, at)
        if self.feature == "confidence":
            features = self.score(view, proposals)
        else:
            entropies = negative_entropy(view.logits, self.conf_dtype)
            features = entropies.masked_fill(~view.candidates, 0)
            proposals = proposals.where(view.candidates, view.tokens)
        final = proposals == self.reference(view).gather(1, at)
        for row, prompt in enumerate(view.canvas.prompts):
            own = view.positions[row] >= 0
            block, step = view.canvas.block_index[row], view.canvas.step_in_block[row]
            self.sink(
                Record(prompt.sample_id, int(block), int(step), features[row, own], final[row, own])
            )


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
