"""Learn2PD filters whose answers can be worked out by hand."""

import torch

from dllm.models.filter import FilterFacts, FilterNetwork


def network(neighbour: float = 0.0, bias: float = -5.0, **facts: object) -> FilterNetwork:
    """z_i = 10 c_i + neighbour c_(i-1) + bias over blocks of four."""
    made = FilterNetwork(FilterFacts(block_length=4, **facts))  # type: ignore[arg-type]
    eye = torch.eye(4)
    made.load_state_dict(
        {
            "linear1.weight": eye,
            "linear1.bias": torch.zeros(4),
            "linear2.weight": 10 * eye + neighbour * eye.roll(1, 0).tril(),
            "linear2.bias": torch.full((4,), bias),
        }
    )
    return made
