"""The models that a sampler asks for beside the one it decodes with: `sampler.verifier=MODEL`."""

from pathlib import Path

from omegaconf import DictConfig

from dllm import config as configuration
from dllm.cache.causal import CausalCache
from dllm.cache.none import NoCache
from dllm.engine.setting import Served
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.models.hub import ModelOptions
from dllm.runs.checkpoint import Checkpoint
from dllm.step.sampler import Sampler


def others(config: DictConfig, sampler: Sampler, own: Checkpoint) -> dict[str, Checkpoint]:
    """Checkpoints by the names that the sampler gives them.

    Raises `ConfigError` for a model that is unknown, reads another vocabulary than `own` or can't
    serve the sampler.
    """
    found = {}
    for name in sorted(sampler.models):
        option = f"sampler.{name}={getattr(sampler, name)}"
        try:
            checkpoint = Checkpoint(options_of(sampler, name, config))
        except ConfigError as error:
            # A folder that is no checkpoint: the user has given it as the sampler's.
            raise ConfigError(str(error).replace("model.path=", f"sampler.{name}=")) from None
        _check_vocabulary(option, checkpoint, own)
        sampler.check_other(name, checkpoint.spec, own.spec)
        own.share(checkpoint)
        found[name] = checkpoint
    return found


def served(predictor: Predictor) -> Served:
    """With the exact cache where the model's attention allows it."""
    causal = predictor.spec.attention == "causal"
    return Served(predictor, CausalCache() if causal else NoCache())


def options_of(sampler: Sampler, name: str, config: DictConfig) -> ModelOptions:
    """The model that the sampler calls `name`.

    Raises `ConfigError` for one that is unknown.
    """
    choice, said = getattr(sampler, name), {}
    option = f"sampler.{name}={choice}"
    if choice in configuration.choices("model"):
        given = [f"model={choice}"]
    elif choice and Path(choice).is_dir():
        given = ["model=checkpoint"]
        # A folder says nothing of dtype and device: as the run's own model.
        said = {"path": choice, "name": Path(choice).name}
        said |= {name: config.model[name] for name in ("dtype", "device")}
    else:
        known = ", ".join(configuration.choices("model"))
        raise ConfigError(f"{option} is no folder and not one of {known}")
    model = configuration.compose(given).model
    model.update(said)
    return configuration.build(model, "model", kind=ModelOptions)


def _check_vocabulary(option: str, other: Checkpoint, own: Checkpoint) -> None:
    """Every token of the other model must be the same one here. What only `own` has (a separator)
    is nothing that the other would say; what is a mask in either is no token of a text."""
    masks = {other.spec.mask_id, own.spec.mask_id}
    theirs, ours = (_spellings(c) for c in (other, own))
    different = sorted(i for i in theirs if i not in masks and theirs[i] != ours.get(i))
    if different:
        first = different[0]
        raise ConfigError(
            f"{option} reads another vocabulary than model.name={own.options.name}: "
            f"{len(different)} of its {len(theirs)} tokens differ, e.g. {first} is "
            f"{theirs.get(first)!r} and {ours.get(first)!r}; both models must share one tokenizer"
        )


def _spellings(checkpoint: Checkpoint) -> dict[int, str]:
    return {number: text for text, number in checkpoint.tokenizer.base.get_vocab().items()}
