"""How a parameter of our transformer is put together from the tensors of a public checkpoint.

A family's weight map is `{our parameter: Source}`, with three kinds of source: the whole tensor,
rows of a fused tensor, or a stack over experts. Reading and writing both follow from the same map.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Whole:
    """The parameter is the tensor."""

    name: str


@dataclass(frozen=True)
class Rows:
    """The parameter is rows [start, stop) of a fused tensor."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Experts:
    """The parameter is [experts, rows, columns]; each expert's tensors are joined along the
    rows."""

    names: tuple[tuple[str, ...], ...]


Source = Whole | Rows | Experts
WeightMap = dict[str, Source]


@dataclass(frozen=True)
class Placement:
    """Where (a part of) a checkpoint tensor goes."""

    parameter: str
    taken: slice
    """Rows of the tensor that are used."""
    expert: int | None
    """First index into the parameter; None = no such axis."""
    rows: slice
    """Rows of the parameter (of the expert) that are filled."""

    def target(self, parameter: Tensor) -> Tensor:
        return (parameter if self.expert is None else parameter[self.expert])[self.rows]


@dataclass(frozen=True)
class Wanted:
    """What a map asks of one checkpoint tensor."""

    shape: tuple[int, ...]
    placements: tuple[Placement, ...]


ALL = slice(None)


def wanted_tensors(sources: WeightMap, shapes: Mapping[str, torch.Size]) -> dict[str, Wanted]:
    """The checkpoint tensors that fill parameters of the given `shapes`."""
    placements: dict[str, list[Placement]] = defaultdict(list)
    expected: dict[str, tuple[int, ...]] = {}
    for parameter, source in sources.items():
        shape = tuple(shapes[parameter])
        match source:
            case Whole(name):
                placements[name].append(Placement(parameter, ALL, None, ALL))
                expected[name] = shape
            case Rows(name, start, stop):
                placements[name].append(Placement(parameter, slice(start, stop), None, ALL))
                rows = max(stop, expected.get(name, (0,))[0])
                expected[name] = (rows, *shape[1:])
            case Experts(names):
                for expert, parts in enumerate(names):
                    height = shape[1] // len(parts)
                    for i, name in enumerate(parts):
                        rows = slice(i * height, (i + 1) * height)
                        placements[name].append(Placement(parameter, ALL, expert, rows))
                        expected[name] = (height, *shape[2:])
    return {name: Wanted(expected[name], tuple(found)) for name, found in placements.items()}


def checkpoint_tensors(sources: WeightMap, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of loading: parameters -> tensors under the checkpoint's names."""
    shapes = {name: tensor.shape for name, tensor in state.items()}
    out: dict[str, Tensor] = {}
    for name, wanted in wanted_tensors(sources, shapes).items():
        first = state[wanted.placements[0].parameter]
        tensor = torch.empty(wanted.shape, dtype=first.dtype, device=first.device)
        for place in wanted.placements:
            tensor[place.taken] = place.target(state[place.parameter])
        out[name] = tensor
    return out
