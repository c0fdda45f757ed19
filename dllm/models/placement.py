"""Where each parameter of a model lives: one device, or several through accelerate."""

from dataclasses import dataclass

import torch

from dllm.errors import ConfigError
from dllm.models.gemma import GemmaLayer
from dllm.models.transformer import Layer, Transformer


@dataclass(frozen=True)
class Placing:
    """Devices by module name; one entry named "" = everything on one device."""

    devices: dict[str, torch.device]

    def device_of(self, parameter: str) -> torch.device:
        name = parameter
        while name and name not in self.devices:
            name = name.rpartition(".")[0]
        return self.devices[name]

    def dispatch(self, model: Transformer) -> Transformer:
        """Adds the hooks that carry activations, and weights kept on the host, to the GPUs."""
        if set(self.devices) == {""}:
            return model
        from accelerate import dispatch_model

        dispatch_model(
            model,
            device_map={name: str(device) for name, device in self.devices.items()},
            main_device=self.devices["embed"],
            force_hooks=True,
        )
        return model


def unavailable(device: str) -> str | None:
    """Why a model can't compute on `model.device` here; None = it can, and "auto" always."""
    try:
        if device != "auto":
            # Some (meta) hold tensors without values.
            float(torch.ones(1, device=device).sum())
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).splitlines()[0]
        return f"model.device={device} is not available ({why}); use cpu, cuda, cuda:N or auto"
    return None


def place(
    model: Transformer,
    dtype: torch.dtype,
    device: torch.device | str,
    max_memory: dict[int | str, int | str] | None = None,
) -> Placing:
    """The placing of a meta-device model for `device`: a torch device or "auto".

    "auto" fills the GPUs one after the other and then the host (accelerate's order), never cutting
    through a layer. `max_memory` is accelerate's own argument.
    """
    if str(device) != "auto":
        if (why := unavailable(str(device))) is not None:
            raise ConfigError(why)
        return Placing({"": torch.device(device)})
    from accelerate import infer_auto_device_map

    found_map = infer_auto_device_map(
        model,
        max_memory=max_memory,
        no_split_module_classes=[Layer.__name__, GemmaLayer.__name__],
        dtype=dtype,
    )
    if "disk" in found_map.values():
        raise ConfigError(
            "model.device=auto: the model does not fit into the memory of the GPUs and the host"
        )
    places = {
        name: torch.device("cuda", where) if isinstance(where, int) else torch.device(where)
        for name, where in found_map.items()
    }
    if len(set(places.values())) == 1:
        return Placing({"": next(iter(places.values()))})
    if model.spec.tied_embeddings and places["embed"].type == "cpu":
        # Offloaded weights come to a module's own forward only, and the head has none.
        raise ConfigError("model.device=auto: the tied embedding does not fit on a GPU")
    return Placing(places)
