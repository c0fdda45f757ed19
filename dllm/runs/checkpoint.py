"""The model of a run: found and checked at once, loaded when something is to be decoded."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch

from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.adapter import beside
from dllm.models.hub import (
    ALLOWED_FILES,
    ModelOptions,
    adapter_folder,
    checkpoint_folder,
    folder_spec,
    open_model,
    open_tokenizer,
)
from dllm.models.placement import unavailable
from dllm.models.shape import shape_only


_CHUNK = 1 << 24


class Checkpoint:
    """One per command: the run, its baseline and its control share what is loaded.

    Raises `ConfigError` for a folder that is no checkpoint or lacks a tokenizer.
    """

    def __init__(self, options: ModelOptions):
        self.options = options
        self.folder = checkpoint_folder(options)
        self.spec = folder_spec(options, self.folder)
        self.tokenizer = open_tokenizer(options, self.spec, self.folder)

        self._base: Checkpoint | None = None

    def check_here(self) -> None:
        """Raises `ConfigError` where this machine lacks the model's device: a model that is loaded
        elsewhere need not be asked."""
        if (why := unavailable(self.options.device)) is not None:
            raise ConfigError(why)

    def share(self, other: "Checkpoint") -> None:
        """Uses the weights of `other` once this model is loaded, where it is `other` with an
        adapter, so that they are in memory once."""
        adapted = adapter_folder(self.options) is not None and adapter_folder(other.options) is None
        same = (self.folder, self.options.dtype, self.options.device) == (
            (other.folder, other.options.dtype, other.options.device)
        )
        if adapted and same:
            self._base = other

    @cached_property
    def predictor(self) -> Predictor:
        adapter = adapter_folder(self.options)
        if self._base is not None and adapter is not None:
            return Predictor(beside(self._base.predictor.model, adapter))
        model, _ = open_model(self.options)
        return Predictor(model)

    @property
    def outline(self) -> Predictor:
        """The model without its weights: what it can be asked, for one that is loaded elsewhere."""
        return Predictor(shape_only(self.spec))

    @cached_property
    def contents(self) -> dict[str, str]:
        """Hash of every file that can be read of checkpoint and adapter, whole: names, sizes
        and times can all stay the same while the weights change. And the day, where the chat
        template writes it into the prompts."""
        folders = [f for f in (self.folder, adapter_folder(self.options)) if f is not None]
        patterns = (*ALLOWED_FILES, "additional_chat_templates/*.jinja")
        files = {path for f in folders for pattern in patterns for path in f.glob(pattern)}
        found = {f"{p.parent.name}/{p.name}": file_hash(p) for p in sorted(files) if p.is_file()}
        day = self.tokenizer.day
        return found if day is None else {**found, "day of the chat template": day}

    def warm_up(self, prompt: tuple[int, ...], rows: int) -> None:
        """One forward, so that thread pools and kernel selection are not charged to a sample."""
        model = self.predictor.model
        tokens = torch.tensor([prompt] * rows, device=model.device)
        with torch.inference_mode():
            positions = torch.arange(len(prompt), device=model.device).expand_as(tokens)
            model.logits(model.hidden(tokens, positions)[:, -1:])


def file_hash(path: Path) -> str:
    """Hash of a file's content: of the hashes of its chunks, which are made side by side, so that
    the disk is the limit and not one core."""

    def part(start: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(_CHUNK)).digest()

    starts = range(0, path.stat().st_size, _CHUNK)
    if len(starts) <= 1:
        return hashlib.sha256(b"".join(map(part, starts))).hexdigest()[:16]
    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(part, starts))).hexdigest()[:16]
