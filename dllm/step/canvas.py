"""The canvas: prompt and generation region of every sequence in the batch, with its progress.

Bookkeeping lives on the host as numpy arrays, one entry per batch row: a step asks for a handful of
small integer operations, which numpy does in a tenth of the time of tensor dispatch and without a
device synchronisation. Rows are left-aligned: row b holds a sequence in [0, length[b]), the rest is
padding. All positions are absolute (the prompt starts at 0).
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Int

from dllm.errors import ConfigError
from dllm.models.spec import ModelSpec
from dllm.step.decision import HostDecision
from dllm.step.transfer import sent


IntRow = Int[np.ndarray, "batch"]


@dataclass(frozen=True)
class Prompt:
    """One sequence to decode."""

    sample_id: str
    tokens: tuple[int, ...]
    gen_length: int
    """Masked positions appended to the prompt (>= 1)."""
    reference: tuple[int, ...] | None = None
    """Tokens of a reference answer, for oracle samplers only."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end this answer besides the model's end tokens."""
    schema: str | None = None
    """JSON Schema of the answer, where the sample has one of its own."""
    region: tuple[int, ...] | None = None
    """The generation region at the start, the mask token where it is to be decoded; None = masks
    only."""
    phase: int = 0
    """How many generations of the same sample came before (samplers that continue an answer)."""


@dataclass(frozen=True)
class Layout:
    """How a sequence lies on its canvas, in absolute positions."""

    length: int
    """Prompt plus generation region at the start."""
    capacity: int
    """Length up to which it may grow, later phases included."""
    kept: int
    """Length to which the finished answer is cut: blocks may reach beyond what was asked for."""
    attention_block: int
    """Block of block-causal attention, counted from position 0; 0 = the model has none."""


class Legality(Protocol):
    """What a sequence's constraint lets stand, asked before anything is proposed."""

    def allowed(self, canvas: "Canvas", position: int) -> Bool[np.ndarray, "vocab"] | None:
        """Tokens that may stand at a masked position of this sequence, which `canvas` holds alone;
        None = not known."""
        ...


@dataclass
class Canvas:
    """Sequences under decoding; only the loop writes it."""

    tokens: Int[np.ndarray, "batch canvas"]
    prompt_length: IntRow
    length: IntRow
    """Prompt plus generation region; grows and shrinks with the answer."""
    limit: IntRow
    """Length that a sequence may not exceed."""
    kept: IntRow
    """Length to which a finished sequence is cut."""
    attention_block: IntRow
    """Block of each sequence's block-causal attention, counted from position 0; 0 = none."""
    block_start: IntRow
    block_end: IntRow
    """The current block is [block_start, block_end)."""
    block_index: IntRow
    """Blocks entered so far minus one; -1 before the first."""
    block_masks: IntRow
    """Masked positions in the block when it was entered."""
    step_in_block: IntRow
    step: IntRow
    """Decisions taken for this sequence so far."""
    prompts: list[Prompt]
    generators: list[torch.Generator]
    """One per sequence, seeded from the run seed and the sample id."""
    legality: list[Legality | None]
    """One per sequence; None = it has no constraint."""
    mask_id: int
    """Stands where nothing is decided: the model's mask token, or `NO_MASK`, which is no token."""
    eos_ids: tuple[int, ...]
    noise: Int[np.ndarray, "batch canvas"] | None = None
    """Of models without a mask token: what they read at the undecided positions of the block, -1
    before it is entered. No decision: an answer never holds it."""
    noise_tokens: int = 0
    """Tokens that noise is drawn from: [0, noise_tokens)."""

    @classmethod
    def empty(
        cls, capacity: int, mask_id: int, eos_ids: tuple[int, ...], noise_tokens: int = 0
    ) -> Self:
        """A canvas without rows that can hold sequences of up to `capacity` positions.

        `noise_tokens` > 0: undecided positions hold random tokens below it.
        """
        columns = [np.zeros(0, dtype=np.int64) for _ in range(11)]
        return cls(
            np.zeros((0, capacity), dtype=np.int64),
            *columns,
            prompts=[],
            generators=[],
            legality=[],
            mask_id=mask_id,
            eos_ids=eos_ids,
            noise=np.zeros((0, capacity), dtype=np.int64) if noise_tokens else None,
            noise_tokens=noise_tokens,
        )

    @property
    def batch(self) -> int:
        return len(self.prompts)

    @property
    def capacity(self) -> int:
        return self.tokens.shape[1]

    @property
    def width(self) -> int:
        """Positions up to the end of the longest sequence."""
        return int(self.length.max())

    def append(self, prompt: Prompt, layout: Layout, generator: torch.Generator) -> None:
        """Adds a sequence as a new last row; the canvas must have the capacity for its layout."""
        for name, value in self._arrays():
            setattr(
                self,
                name,
                np.concatenate((value, np.zeros_like(value, shape=(1, *value.shape[1:])))),
            )
        self.prompts.append(prompt)
        self.generators.append(generator)
        self.legality.append(None)
        self.hand_on(self.batch - 1, prompt, layout, generator)

    def hand_on(self, row: int, prompt: Prompt, layout: Layout, generator: torch.Generator) -> None:
        """Puts a sequence in the place of the one in `row`."""
        start = len(prompt.tokens)
        self.tokens[row] = self.mask_id
        self.tokens[row, :start] = prompt.tokens
        if prompt.region is not None:
            self.tokens[row, start : start + len(prompt.region)] = prompt.region
        if self.noise is not None:
            self.noise[row] = -1
        self.prompt_length[row] = self.block_start[row] = self.block_end[row] = start
        self.length[row], self.limit[row], self.kept[row] = (
            layout.length,
            layout.capacity,
            layout.kept,
        )
        self.attention_block[row] = layout.attention_block
        self.block_index[row] = -1
        self.block_masks[row] = self.step_in_block[row] = self.step[row] = 0
        self.prompts[row], self.generators[row], self.legality[row] = prompt, generator, None

    def keep(self, rows: list[int]) -> None:
        """Drops every sequence that is not in `rows`; order follows `rows`."""
        for name, value in self._arrays():
            setattr(self, name, value[rows])
        self.prompts = [self.prompts[r] for r in rows]
        self.generators = [self.generators[r] for r in rows]
        self.legality = [self.legality[r] for r in rows]

    def branched(self, count: int) -> Self:
        """A copy in which `count` rows in a row stand for each sequence."""
        arrays = {name: np.repeat(value, count, axis=0) for name, value in self._arrays()}
        prompts = [prompt for prompt in self.prompts for _ in range(count)]
        generators = [generator for generator in self.generators for _ in range(count)]
        legality = [one for one in self.legality for _ in range(count)]
        return replace(self, **arrays, prompts=prompts, generators=generators, legality=legality)

    def take(self, row: int) -> Self:
        """A copy of one sequence; it draws from the same generator."""
        arrays = {name: value[row : row + 1].copy() for name, value in self._arrays()}
        return replace(
            self,
            **arrays,
            prompts=[self.prompts[row]],
            generators=[self.generators[row]],
            legality=[self.legality[row]],
        )

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        return [
            (name, value) for name, value in vars(self).items() if isinstance(value, np.ndarray)
        ]

    def masked(self) -> Bool[np.ndarray, "batch canvas"]:
        """Undecided positions of the generation regions."""
        index = np.arange(self.capacity)
        return (
            (self.tokens == self.mask_id)
            & (index >= self.prompt_length[:, None])
            & (index < self.length[:, None])
        )

    def given(self) -> Bool[np.ndarray, "batch canvas"] | None:
        """Positions of the generation regions that were no masks at the start; None = all were."""
        if all(prompt.region is None for prompt in self.prompts):
            return None
        given = np.zeros(self.tokens.shape, dtype=bool)
        for row, prompt in enumerate(self.prompts):
            region, start = np.array(prompt.region or (), dtype=np.int64), len(prompt.tokens)
            given[row, start : start + region.size] = region != self.mask_id
        return given

    def in_block(self) -> Bool[np.ndarray, "batch canvas"]:
        """Positions of the current blocks, decided or not."""
        index = np.arange(self.capacity)
        return (index >= self.block_start[:, None]) & (index < self.block_end[:, None])

    def masked_in_block(self, row: int) -> int:
        # An aligned block may begin inside the prompt, which is never masked.
        start = max(self.block_start[row], self.prompt_length[row])
        # A block may reach beyond a sequence that is still growing.
        end = min(self.block_end[row], self.length[row])
        return int(np.count_nonzero(self.tokens[row, start:end] == self.mask_id))

    def generated(self, row: int) -> Int[np.ndarray, "generation"]:
        """Tokens of the generation region of one row."""
        return self.tokens[row, self.prompt_length[row] : self.length[row]]

    def enter_block(self, row: int, start: int, end: int) -> None:
        """Makes [start, end) the current block of a row."""
        self.block_start[row], self.block_end[row] = start, end
        self.block_index[row] += 1
        self.step_in_block[row] = 0
        self.block_masks[row] = self.masked_in_block(row)
        if self.noise is not None:
            generator = self.generators[row]
            drawn = torch.randint(
                self.noise_tokens, (end - start,), generator=generator, device=generator.device
            )
            self.noise[row, start:end] = drawn.cpu().numpy()

    def end_blocks(self, ends: IntRow) -> None:
        """Moves the ends of the current blocks."""
        for row in (ends != self.block_end).nonzero()[0]:
            assert ends[row] > self.block_start[row], "a block holds at least one position"
            self.block_end[row] = ends[row]
            self.block_masks[row] = self.masked_in_block(row)

    def apply(self, decision: HostDecision) -> None:
        """Writes the tokens of one decision and counts the step."""
        for row, changes in enumerate(decision.rows):
            if changes.commit_positions.size:
                self.tokens[row, changes.commit_positions] = changes.commit_tokens
            if changes.edit_positions.size:
                self.tokens[row, changes.edit_positions] = changes.edit_tokens
            if changes.remask_positions.size:
                self.tokens[row, changes.remask_positions] = self.mask_id
            if changes.noise is not None and self.noise is not None:
                self.noise[row, changes.noise[0]] = changes.noise[1]
        self.step += 1
        self.step_in_block += 1

    def fill(self, row: int, start: int, token: int) -> None:
        """Sets everything from `start` to the end of the sequence to `token`."""
        self.tokens[row, start : self.length[row]] = token

    def ends(self, row: int) -> tuple[int, ...]:
        """Tokens that end a row's answer."""
        return self.eos_ids + self.prompts[row].stop_ids

    def allowed(self, row: int, position: int) -> Bool[np.ndarray, "vocab"] | None:
        """Tokens that a row's constraint lets stand at a masked position, the canvas as it is;
        None = all, or not known. What is decided in the same step besides is reviewed later."""
        legality = self.legality[row]
        return None if legality is None else legality.allowed(self.take(row), position)

    def insert(self, row: int, position: int, count: int) -> None:
        """Puts `count` masks before `position`; what follows moves right."""
        end = int(self.length[row])
        self.tokens[row, position + count : end + count] = self.tokens[row, position:end]
        self.tokens[row, position : position + count] = self.mask_id
        self.length[row] = end + count

    def truncate(self, row: int, length: int) -> None:
        """Ends the sequence after `length` positions (prompt included)."""
        self.length[row] = length
        self.block_end[row] = min(self.block_end[row], length)

    def grow(self, row: int, count: int) -> None:
        """Appends `count` masked positions.

        Raises `ConfigError` beyond the canvas capacity (the model's positions).
        """
        end = int(self.length[row]) + count
        if end > self.capacity:
            raise ConfigError(f"growing to {end} positions exceeds the canvas of {self.capacity}")
        self.tokens[row, self.length[row] : end] = self.mask_id
        self.length[row] = end

    def in_terms_of(self, spec: ModelSpec) -> Self:
        """The canvas as a model reads it, with its own mask token or the noise of this canvas, and
        padding for tokens that it has no row for; shares all but the tokens."""
        if self.noise is not None:
            undecided = self.tokens == self.mask_id
            return replace(self, tokens=np.where(undecided, self.noise, self.tokens))
        if spec.mask_id == self.mask_id and self.tokens.max() < spec.vocab_size:
            return self
        foreign = self.tokens >= spec.vocab_size
        masks = self.tokens == self.mask_id
        masks &= np.arange(self.capacity) >= self.prompt_length[:, None]
        tokens = np.where(masks, spec.mask_id, np.where(foreign, spec.pad_id, self.tokens))
        return replace(self, tokens=tokens, mask_id=spec.mask_id)

    def tensor(self, device: torch.device | str = "cpu") -> Int[torch.Tensor, "batch canvas"]:
        """The tokens as a tensor (shares memory on the CPU: read only)."""
        return sent(torch.from_numpy(self.tokens), torch.device(device))
