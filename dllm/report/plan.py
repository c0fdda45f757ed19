"""What a run would do, what it needs, and which published figure it stands beside (`--dry`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from dllm import config as configuration
from dllm.engine.legality import refusals
from dllm.errors import ConfigError
from dllm.models.hub import ModelOptions, open_spec
from dllm.models.placement import unavailable
from dllm.models.sizes import sizes
from dllm.report.published import FOLDER, MARKS, PublishedRow, publications
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.executor import Executor
from dllm.runs.labels import label
from dllm.runs.others import options_of
from dllm.runs.parts import Parts, build_parts
from dllm.runs.run import check_decodable
from dllm.tasks.base import Sample, Task
from dllm.tasks.public import PublicTask


def plan(config: DictConfig, name: str) -> list[str]:
    """Lines to print; nothing is decoded, downloaded or written.

    Raises `ConfigError` for what could not even be started.
    """
    configuration.check_complete(config)
    parts = build_parts(config)
    baseline = ""
    if config.baseline:
        baseline = (
            f"; beside it one token per step, {config.gen_length} forwards per sample "
            "(baseline=false leaves it out)"
        )
    others = [options_of(parts.sampler, name, config) for name in sorted(parts.sampler.models)]
    samples, data = _data(parts.task, config)
    return [
        f"would decode   {label(config, name)}{baseline}",
        f"answer         {config.gen_length} positions, eos={config.eos}, "
        f"batch_size={config.batch_size}",
        *(f"needs model    {_model(options)}" for options in (parts.model, *others)),
        *_refusals(config, parts, (parts.model, *others), samples),
        *(f"not ready      {why}" for why in _lacking(config, (parts.model, *others))),
        f"needs data     {data}",
        *_published(config.published),
    ]


def _model(options: ModelOptions) -> str:
    if options.path is not None:
        where = f"the checkpoint in {options.path}"
    elif options.hub is None:
        return f"{options.name}, which is shipped"
    else:
        where = f"{options.hub} from the hub, or model.path=FOLDER with a copy"
    if options.preset is None:
        return where
    parameters = sizes(open_spec(options)).parameters
    size = parameters * options.torch_dtype.itemsize / 2**30
    return f"{where}; {parameters / 1e9:.2f} G parameters, {size:.1f} GiB in {options.dtype}"


def _refusals(
    config: DictConfig,
    parts: Parts,
    models: Sequence[ModelOptions],
    samples: Sequence[Sample] | None,
) -> Iterator[str]:
    """Why the run would be refused, as far as it can be told without what is not here."""
    options = parts.model
    if samples is not None and all(m.path is not None or m.hub is None for m in models):
        try:
            check_decodable(config, parts, Checkpoint(options), samples)
        except ConfigError as error:
            yield f"not ready      {error}"
        return
    if options.preset is None and options.hub is not None:
        return
    for reason in refusals(parts.sampler, parts.cache, open_spec(options), config.batch_size):
        if "needs a tokenizer" not in reason:  # it comes with the checkpoint
            yield f"not ready      {reason}"


def _lacking(config: DictConfig, models: Sequence[ModelOptions]) -> Iterator[str]:
    """Devices that are not here; what an executor finds elsewhere is not known."""
    executor = configuration.build(config.executor, "executor", config.allow_external, Executor)
    if executor.here:
        devices = dict.fromkeys(options.device for options in models)
        yield from (why for device in devices if (why := unavailable(device)) is not None)


def _data(task: Task, config: DictConfig) -> tuple[Sequence[Sample] | None, str]:
    """The samples, None for those that are not here, and what to tell of them."""
    if not isinstance(task, PublicTask) or task.path is not None:
        try:
            samples = task.samples("test", config.limit, config.seed)
        except ConfigError as error:
            return None, f"not ready: {error}"
        return samples, f"{len(samples)} samples, which are here"
    fields = ", ".join(task.source.fields)
    return None, f"{task.source.hub} from the hub, or task.path=FILE with the fields {fields}"


def _published(wanted: str | None) -> Iterator[str]:
    if wanted is None or not FOLDER.is_dir():
        return
    row, paper, source = published_row(wanted)
    figures = []
    if row.accuracy is not None:
        figures.append(f"score {row.accuracy}")
    if row.speed is not None:
        figures.append(row.speed)
    if row.speedup is not None:
        figures.append(f"{row.speedup} times the authors' baseline")
    yield f"published      {', '.join(figures) or 'no figure'} ({MARKS[row.mark]})"
    yield f"               {row.model}, {row.benchmark}: {row.setting}"
    yield f"               {paper}; {source}"


def published_row(wanted: str, folder: Path = FOLDER) -> tuple[PublishedRow, str, str]:
    """The row that `FILE: MODEL, BENCHMARK, SETTING` names, its paper and its source.

    Raises `ConfigError` where there is no such row.
    """
    name = wanted.partition(":")[0]
    for publication in publications(folder, [name]):
        for row in publication.rows:
            if wanted == f"{name}: {row.model}, {row.benchmark}, {row.setting}":
                return row, publication.paper, publication.source
    raise ConfigError(f"published={wanted}: results/published/{name}.yaml has no such row")
