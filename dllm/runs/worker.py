"""What decodes samples of a run in another process."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from dllm.errors import RunError
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import Decoding
from dllm.runs.executor import Finished, Work
from dllm.runs.parts import build_parts
from dllm.runs.run import Run


class Worker:
    """Keeps the model for the next work with the same one, and the work for its next samples."""

    def __init__(self) -> None:
        self._checkpoint: Checkpoint | None = None
        self._work: Work | None = None
        self._decoding: Decoding | None = None

    def decode(self, work: Work, samples: Sequence[str]) -> list[Finished]:
        """Raises `RunError` where this process reads other code, another model or other data than
        the one that asks."""
        if self._decoding is None or work != self._work:
            self._work, self._decoding = work, self._opened(work)
        return list(self._decoding.results(samples))

    def _opened(self, work: Work) -> Decoding:
        config = OmegaConf.create(work.config)
        assert isinstance(config, DictConfig)
        parts = build_parts(config)
        if self._checkpoint is None or self._checkpoint.options != parts.model:
            self._checkpoint = Checkpoint(parts.model)
        run = Run(config, work.name, parts, self._checkpoint, ())
        if run.identity.mark != work.mark:
            raise RunError(
                f"a worker has other code, another model or other data than this process: its run "
                f"is {run.identity.mark}, not {work.mark}"
            )
        return run.decoding(run.samples, work.references)
