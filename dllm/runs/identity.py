"""What decides a run's result, as a hash: options, code, model, data.

An edited rule, another weight in the middle of a checkpoint, another chat template or another line
of a data file is another run, in another folder. What only says how to show or keep a result
(tracker, progress, workers) is no part of it.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch.nn import Module

from dllm.config import WITHOUT_EFFECT, fingerprint
from dllm.runs.checkpoint import file_hash
from dllm.step.sampler import Sampler
from dllm.tasks.base import Sample


ENGINE = ("dllm.engine.loop", "dllm.runs.decoding")
"""What every run executes, besides the parts that its configuration names."""
_OURS = ("dllm", "samplers")
_LIBRARIES = ("site-packages", "dist-packages")
_LONGEST_NAME = 200
"""Characters; a longer text is none, and systems refuse to look for one that is much longer."""


@dataclass(frozen=True)
class Identity:
    """Contents of identity.json."""

    configuration: str
    """Fingerprint of the options."""
    code: Mapping[str, str]
    """Module, or file that one reads or runs by its name -> hash of its content."""
    model: Mapping[str, str]
    """File of the checkpoint -> hash of its content."""
    data: Mapping[str, str]
    """The samples, every file that an option names, in a folder or by itself, every network that
    the sampler loaded -> hash of the content."""

    @classmethod
    def of(
        cls,
        config: DictConfig,
        sampler: Sampler,
        model: Mapping[str, str],
        samples: Sequence[Sample],
    ) -> "Identity":
        contents = [asdict(replace(s, meta={})) | {"meta": dict(s.meta)} for s in samples]
        # What a folder of a model holds is in `model`, less what nothing of it reads.
        models = {"model.path", "model.adapter", *(f"sampler.{name}" for name in sampler.models)}
        data = {option: file_hash(path) for option, path in named_files(config, models)}
        data |= {f"sampler.{name}": network_hash(n) for name, n in networks(sampler)}
        return cls(
            fingerprint(config),
            {name: file_hash(path) for name, path in code_of([*ENGINE, *targets(config)]).items()},
            model,
            {"samples": _hash(contents), **data},
        )

    @property
    def mark(self) -> str:
        """Name of the run's folder, 12 hex digits."""
        return _hash(asdict(self))

    def changed_from(self, other: Mapping[str, Any]) -> list[str]:
        """Names of what differs from another identity.json."""
        found = []
        for name in ("code", "model", "data"):
            ours, theirs = getattr(self, name), other.get(name, {})
            found += sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        return found


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def targets(config: Any) -> Iterator[str]:
    """Modules of all classes that a configuration names, but the tracker's and the
    executor's."""
    if isinstance(config, DictConfig):
        if isinstance(target := config.get("_target_"), str):
            yield target.rsplit(".", 1)[0]
        for key in config:
            if key not in ("tracker", "executor"):
                yield from targets(config[key])


def named_files(config: DictConfig, models: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """Files that options name, in lists and mappings too (a filter, a table, a data set), and of
    the folders that they name all but the hidden ones.

    models: options whose folders do not count
    """
    working = [Path.cwd(), Path(config.output).resolve()]
    for key in (str(name) for name in config if name not in WITHOUT_EFFECT):
        for option, path in _paths(key, config[key]):
            if os.path.isfile(path):
                yield option, path
                continue
            # What one works or writes in changes all the time: no folder of a part's own.
            above = any(place.is_relative_to(os.path.realpath(path)) for place in working)
            if option not in models and os.path.isdir(path) and not above:
                yield from ((f"{option}/{name}", file) for name, file in _files_in(path))


def _paths(option: str, value: Any) -> Iterator[tuple[str, Path]]:
    """Every text in an option's value that may be a path."""
    if isinstance(value, ListConfig):
        for number, item in enumerate(value):
            yield from _paths(f"{option}.{number}", item)
    elif isinstance(value, DictConfig):
        for key in value:
            yield from _paths(f"{option}.{key}", value[key])
    elif isinstance(value, str | Path) and value and len(str(value)) < 4096:
        yield option, Path(value)


def _files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and place of every readable file below a folder."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and path.is_file() and os.access(path, os.R_OK):
            yield name.as_posix(), path


def networks(part: Any) -> Iterator[tuple[str, Module]]:
    """Networks that a part loaded when it was built, the parts inside it included."""
    for name, value in vars(part).items():
        if isinstance(value, Module):
            yield name, value
        elif is_dataclass(value):
            yield from ((f"{name}.{inner}", network) for inner, network in networks(value))


def network_hash(network: Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def code_of(modules: Sequence[str]) -> dict[str, Path]:
    """The modules and everything of ours that they import, directly or through others, and the
    files beside one that it names in a text: data, scripts that another process runs.

    Ours are this distribution, the packages of the given modules, and what lies beside one of them
    outside of a library folder; the versions of libraries are in environment.json.
    """
    packages = {*_OURS, *(name.split(".")[0] for name in modules)}
    roots = {root for name in packages if (root := _root(find_spec(name))) is not None}
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        for module in _with_parents(name):
            spec = None if module in found else _spec(module, packages, roots)
            if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
                continue
            path = found[module] = Path(spec.origin)
            package = module if spec.submodule_search_locations else module.rpartition(".")[0]
            imports, texts = _said(path.read_bytes(), package)
            waiting += imports
            for file in _named(texts, path.parent):
                name = file.relative_to(path.parent).as_posix()
                if file.suffix == ".py":
                    waiting.append(f"{package}.{name[:-3].replace('/', '.')}".lstrip("."))
                else:
                    found[f"{package}/{name}"] = file
    return dict(sorted(found.items()))


@cache  # run and baseline share nearly all of their code
def _said(source: bytes, package: str) -> tuple[Sequence[str], Sequence[str]]:
    """What a module of a package ("" = none) says by which others may be found. Full names of what
    it imports, inside functions too; of `from a import b` both `a` and `a.b`, since `b` may be a
    module; of `import b` also the `b` beside it, which a script finds first. And its texts that may
    name a file beside it."""
    parents = package.split(".") if package else []
    imports, texts = [], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports += [alias.name, ".".join([*parents, alias.name])]
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            imports += [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = PurePath(node.value)
            inside = name.parts and not name.is_absolute() and ".." not in name.parts
            if inside and len(node.value) <= _LONGEST_NAME:
                texts.append(node.value)
    return imports, texts


def _named(texts: Sequence[str], folder: Path) -> Iterator[Path]:
    """Files of a folder that texts of a module in it name, or that lie in a folder so named which
    is no package."""
    for text in texts:
        place = folder / text
        if place.is_file():
            yield place
        elif place.is_dir() and not (place / "__init__.py").exists():
            yield from (file for file in place.iterdir() if file.is_file())


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _root(spec: ModuleSpec | None) -> Path | None:
    """Folder that a top-level package or module lies in; None for libraries."""
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    root = path.parents[1] if spec.submodule_search_locations else path.parent
    return None if root.name in _LIBRARIES else root


def _spec(module: str, packages: set[str], roots: set[Path]) -> ModuleSpec | None:
    """Where a module lies, found without executing it; None for what is no module or not ours."""
    top, *rest = module.split(".")
    if top in sys.stdlib_module_names:
        return None
    spec, name = find_spec(top), top
    if top not in packages and _root(spec) not in roots:
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec
