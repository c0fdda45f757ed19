"""The processes that decode one run together: `accelerate launch --multi_gpu --num_processes 2 -m
scripts.run ...` (accelerate's name for several processes, on processors too), or `torchrun`.

All read the same configuration and check it. The first one keeps the run's folder; each decodes its
share of the samples into files of its own, which the first one gathers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from dllm.errors import ConfigError, RunError


Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    rank: int
    """Of this process, from 0."""
    size: int
    """Processes in all."""

    @classmethod
    def of_environment(cls) -> "Ranks":
        """As torch's launchers say; one process without them.

        Raises `ConfigError` for variables that no launcher sets: each would be silent, since only
        the first of them speaks.
        """
        rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
        if not rank.isdecimal() or not size.isdecimal():
            return cls(0, 1)
        if int(rank) >= int(size):
            raise ConfigError(
                f"RANK={rank} and WORLD_SIZE={size} of the environment: a rank is below the number "
                "of processes; unset what a launcher has left"
            )
        return cls(int(rank), int(size))

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `size`-th, so that each gets some of the long ones."""
        return items[self.rank :: self.size]

    def join(self, device: str) -> None:
        """Meets the other processes; each takes a GPU of its machine where `device` is "cuda"."""
        if not self.several:
            return
        import torch  # not needed for --help

        if not torch.distributed.is_initialized():
            # A wait lasts as long as another process decodes.
            torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))

    def wait(self) -> None:
        """Until all processes are here.

        Raises `RunError` where one of them has ended.
        """
        if not self.several:
            return
        import torch

        try:
            torch.distributed.barrier()
        except RuntimeError:
            raise RunError(
                f"one of the {self.size} processes has ended before its samples were done: "
                "what is finished is kept, the same command goes on"
            ) from None
