"""A device that is not the host, pretended: its tensors compute on the host, but as an accelerator
would they refuse to meet the host's, and what waits for them is counted.

torch's meta device lends its name, because no other can be named where none is built in.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


DEVICE = torch.device("meta")
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
"""Operations whose result an accelerator's host has to wait for."""


class Far(Tensor):
    """A tensor of the pretended device."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> "Far":
        far = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            own.size(),
            strides=own.stride(),
            storage_offset=own.storage_offset(),
            dtype=own.dtype,
            device=DEVICE,
        )
        far.own = own
        return far

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __setitem__(self, index: Any, value: Any) -> None:
        # torch would make a tensor of the lent device of a number.
        value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=self.dtype)
        super().__setitem__(_listed(index), value)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_listed(index))

    def __repr__(self, **_: Any) -> str:
        return f"Far({self.own!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {}, Counter())


def _listed(index: Any) -> Any:
    """Lists and host arrays as host tensors: torch would put them on the lent device."""
    if isinstance(index, tuple):
        return tuple(map(_listed, index))
    return torch.tensor(index) if isinstance(index, (list, np.ndarray)) else index


def computed(func: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str]) -> Any:
    """An operation where its arguments lie."""
    name = func.overloadpacket.__name__
    given = kwargs.get("device")
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    far = [leaf for leaf in tensors if isinstance(leaf, Far)]
    near = [leaf for leaf in tensors if not isinstance(leaf, Far)]
    assert all(tensor.device != DEVICE for tensor in near), f"{name}: values were lost"
    if far and near and name not in ("copy_", "set_"):
        # A single value of the host is an argument like any other.
        mixed = [tensor for tensor in near if tensor.dim() > 0]
        if name in ("index", "index_put", "index_put_") and isinstance(args[0], Far):
            # Indices may be the host's: they are sent.
            mixed = [
                tensor for tensor in args[2:3] if not isinstance(tensor, Far) and tensor.dim() > 0
            ]
        assert not mixed, f"{name}: operands on both devices, {[list(t.shape) for t in tensors]}"
    if name in WAITING or (name in ("index", "index_put_", "index_put") and far and _by_mask(args)):
        waits[name] += bool(far)
    if far and given is not None and torch.device(given).type == "cpu":
        waits["to the host"] += 1
    if name == "copy_" and far and any(tensor.dim() for tensor in near):
        waits["copied between"] += 1
    if given is not None:
        kwargs = {**kwargs, "device": "cpu"}
    out = func(*tree_map(_own, args), **tree_map(_own, kwargs))
    target = torch.device(given).type == "meta" if given is not None else bool(far)
    if name == "copy_":
        return args[0]
    if func._schema.is_mutable and func._schema.arguments[0].alias_info is not None:
        return args[0] if not isinstance(out, (tuple, list)) else out
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(lambda x: Far(x) if isinstance(x, Tensor) and target else x, out)


def _own(x: Any) -> Any:
    return x.own if isinstance(x, Far) else x


def _by_mask(args: Any) -> bool:
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])


class Pretending(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations[func.overloadpacket.__name__] += 1
        return computed(func, args, kwargs or {}, self.waits)


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretending]:
    """Within, tensors asked for on `DEVICE` are pretended ones, and generators the host's."""
    generator, tensor, as_tensor, new = (
        torch.Generator,
        torch.tensor,
        torch.as_tensor,
        Tensor.new_tensor,
    )

    class Generator(generator):  # type: ignore[misc, valid-type]
        def __new__(cls, device: Any = "cpu") -> Any:
            return super().__new__(cls, "cpu")  # type: ignore[call-arg]

    def placed(make: Any) -> Any:
        """Values given on the host, which torch's own functions move out of sight."""

        def call(data: Any, *, device: Any = None, **options: Any) -> Tensor:
            made = make(data, **options)
            return made if device is None else made.to(device)

        return call

    def renewed(self: Tensor, data: Any, **options: Any) -> Tensor:
        if not isinstance(self, Far):
            return new(self, data, **options)
        return torch.tensor(data, dtype=self.dtype, device=self.device)

    with monkeypatch.context() as patch, torch.no_grad(), Pretending() as mode:
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "tensor", placed(tensor))
        patch.setattr(torch, "as_tensor", placed(as_tensor))
        patch.setattr(Tensor, "new_tensor", renewed)
        # Subclasses can't be written in place there.
        patch.setattr(torch.inference_mode, "__enter__", lambda self: None)
        patch.setattr(torch.inference_mode, "__exit__", lambda self, *_: None)
        yield mode


def moved(model: nn.Module) -> nn.Module:
    """The model's weights on the pretended device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(Far(parameter.data), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Far(buffer)
    return model
