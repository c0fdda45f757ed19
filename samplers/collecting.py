"""The two passes that collect filter training data (learn2pd section 3.5).

First the reference answers: one token per step. Then the oracle over the same prompts from an
all-mask canvas, recorded at every forward; each block starts from the reference's prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dllm.cache.none import NoCache
from dllm.canvas import Prompt
from dllm.errors import RunError
from dllm.loop import Decoder
from dllm.models.predictor import Predictor
from dllm.outcome import Outcome
from dllm.sampler import Sampler
from dllm.scores import ConfDtype
from dllm.training.records import Record
from samplers.low_confidence import LowConfidence
from samplers.oracle import RecordingOracle
from samplers.proposers import Greedy
from samplers.regions import FixedBlocks


@dataclass(frozen=True)
class Collector:
    predictor: Predictor
    block_length: int
    conf_dtype: ConfDtype
    batch_size: int

    def references(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts with the model's own answers."""
        baseline = LowConfidence(
            region=FixedBlocks(block_length=self.block_length),
            proposer=Greedy(),
            conf_dtype=self.conf_dtype,
            steps=None,
            remasking="low_confidence",
            cfg_scale=0.0,
            logits_eos_inf=False,
            confidence_eos_eot_inf=False,
            eot_ids=[],
            official_quirk=False,
        )
        answers = {outcome.sample_id: outcome.tokens for outcome in self._decode(baseline, prompts)}
        return [replace(prompt, reference=answers[prompt.sample_id]) for prompt in prompts]

    def records(self, prompts: Sequence[Prompt]) -> tuple[list[Record], list[Outcome]]:
        """Records of prompts with references, sample by sample in their order, and the answers."""
        found: dict[str, list[Record]] = {prompt.sample_id: [] for prompt in prompts}
        oracle = RecordingOracle(
            region=FixedBlocks(block_length=self.block_length),
            proposer=Greedy(),
            conf_dtype=self.conf_dtype,
            sink=lambda record: found[record.sample_id].append(record),
        )
        outcomes = self._decode(oracle, prompts)
        return [record for records in found.values() for record in records], outcomes

    def _decode(self, sampler: Sampler, prompts: Sequence[Prompt]) -> list[Outcome]:
        decoder = Decoder(self.predictor, sampler, NoCache(), batch_size=self.batch_size)
        outcomes = list(decoder.decode(prompts))
        for outcome in outcomes:
            if outcome.failure is not None:
                raise RunError(outcome.failure)
        return outcomes
