"""What every configuration in conf/sampler must satisfy; a new file is picked up by itself.

A sampler is run with the first attention kind and cache that fit it; the options that name files or
texts are supplied, whoever asks for them.
"""

import ast
import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from constraining import Rewriting, Watching
from omegaconf import DictConfig, OmegaConf
from tiny_decoding import MASK, NOISE, SPEC, random_model
from torch import Tensor
from toy_model import FIRST, PROMPT, OraclePredictor

from dllm.cache.policy import CachePolicy
from dllm.config import build, compose
from dllm.engine.legality import refusals
from dllm.engine.loop import Decoder
from dllm.engine.selection import seen
from dllm.engine.setting import Served
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.filter import FilterFacts, FilterNetwork, save_filter
from dllm.models.spec import ModelSpec
from dllm.step.canvas import Prompt
from dllm.step.eos import EosPolicy
from dllm.step.outcome import Outcome
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction, View
from dllm.step.sampler import Sampler
from dllm.tasks.toy_oracle import ToyOracle


CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
CACHES = sorted((path.stem for path in (CONF / "cache").glob("*.yaml")), key=lambda n: n != "none")
AUTOREGRESSIVE = replace(SPEC, attention="causal", logit_shift=1)
SPECS = (
    SPEC,
    replace(SPEC, logit_shift=1),
    replace(SPEC, attention="block_causal", block_size=4),
    replace(SPEC, attention="causal"),
    AUTOREGRESSIVE,
    NOISE,
)
GEN_LENGTH, BLOCK = 16, 8


def _nodes(config: DictConfig) -> Iterator[DictConfig]:
    yield config
    for value in config.values():
        if isinstance(value, DictConfig):
            yield from _nodes(value)


@cache
def _filter(folder: Path) -> str:
    torch.manual_seed(0)
    network = FilterNetwork(FilterFacts(block_length=BLOCK))
    save_filter(network, folder / "filter.safetensors")
    return str(folder / "filter.safetensors")


def _supplied(config: DictConfig, folder: Path) -> DictConfig:
    """Two blocks per answer, and a value for each option that names something outside."""
    OmegaConf.resolve(config)
    for node in _nodes(config):
        if node.get("block_length") == 32:
            node.block_length = BLOCK
        for name in list(node):
            text = str(name).removesuffix("_ids")
            if name == "filter":
                node.filter = _filter(folder)
            elif name == "final_gen_length":
                node[name] = GEN_LENGTH
            elif name == "initial_length":
                node[name] = BLOCK
            elif name != text and (text in node or f"{text}s" in node):
                # Ids in place of texts, which would need a tokenizer, and of real models' ids.
                node[name] = [3, 5]
    return config


class Fitting:
    """A sampler with a cache and a model that it goes with."""

    def __init__(
        self,
        name: str,
        folder: Path,
        policies: Sequence[str] = CACHES,
        options: Sequence[str] = (),
    ):
        config = compose([f"sampler={name}", *options])
        self.sampler: Sampler = build(_supplied(config.sampler, folder), "sampler")
        reasons = []
        for policy in policies:
            for spec in SPECS:
                self.cache, self.spec = _cache(policy), spec
                found = refusals(self.sampler, self.cache, spec)
                try:
                    self.sampler.layout(prompts(4)[0], spec)
                except ConfigError as error:
                    found.append(str(error))
                if not found:
                    return
                reasons.append(found)
        shown = {reason for found in reasons for reason in found}
        raise AssertionError(f"{name} goes with no cache and attention kind: {shown}")

    def decode(
        self, prompts: list[Prompt], predictor: Any = None, other: Any = None, **options: Any
    ) -> list[Outcome]:
        """`other`: of the models that the sampler asks for beside the canvas's."""
        predictor = predictor or Predictor(_model(self.spec))
        other = Served(other or Predictor(_model(AUTOREGRESSIVE)), _cache("none"))
        others = dict.fromkeys(self.sampler.models, other)
        decoder = Decoder(
            predictor, self.sampler, self.cache, record=True, others=others, **options
        )
        by_id = {outcome.sample_id: outcome for outcome in decoder.decode(prompts)}
        return [by_id[prompt.sample_id] for prompt in prompts]

    @property
    def batch(self) -> int:
        return 1 if self.sampler.batch_one else 3


@cache
def _cache(policy: str) -> CachePolicy:
    config = compose(f"cache={policy}".split()).cache
    return build(config, "cache")


@cache
def _fitting(name: str, folder: Path) -> "Fitting":
    return Fitting(name, folder)


@cache
def _model(spec: ModelSpec) -> Any:
    return random_model(spec)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("supplied")


@pytest.fixture(params=NAMES)
def fitting(request: pytest.FixtureRequest, folder: Path) -> Fitting:
    return _fitting(request.param, folder)


def prompts(*lengths: int) -> list[Prompt]:
    generator = torch.Generator().manual_seed(9)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, SPEC.vocab_size, (count,), generator=generator).tolist())

    return [
        Prompt(f"s{number}", draw(length), GEN_LENGTH, reference=draw(GEN_LENGTH))
        for number, length in enumerate(lengths)
    ]


def test_methods_of_the_interface_are_called_alike(fitting: Fitting) -> None:
    """What a sampler names as the interface does takes what the interface gives."""
    for name, method in vars(Sampler).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            own = getattr(type(fitting.sampler), name)
            assert list(inspect.signature(own).parameters) == list(
                inspect.signature(method).parameters
            ), name


def test_decodes(fitting: Fitting) -> None:
    wanted = prompts(4, 8, 11)
    alone = fitting.decode(wanted)
    for prompt, outcome in zip(wanted, alone, strict=True):
        assert outcome.failure is None
        assert len(outcome.tokens) <= GEN_LENGTH
        assert fitting.spec.mask_id not in outcome.tokens
        _consistent(outcome, prompt)
    again = fitting.decode(wanted)
    assert [o.tokens for o in again] == [o.tokens for o in alone]
    # Neither the neighbours in the batch nor their order change a sequence.
    together = fitting.decode(wanted, batch_size=fitting.batch)
    backwards = fitting.decode(wanted[::-1], batch_size=fitting.batch)[::-1]
    for one, other, turned in zip(alone, together, backwards, strict=True):
        assert one.tokens == other.tokens == turned.tokens
        assert one.cost.nfe == other.cost.nfe == turned.cost.nfe


PARTIAL = (
    "d2cache cache.current_k=2",
    "dkv",
    "dual",
    "window_dream cache.outer_window=3 cache.refresh_cycle=4",
)
"""Caches whose forwards leave out some of the rows that rules ask for."""


def _legal(name: str, folder: Path, policies: Sequence[str]) -> Iterator[Fitting]:
    """The sampler under the caches and attention kinds that it is not refused with."""
    for policy, spec in product(policies, SPECS):
        fitting = copy(_fitting(name, folder))
        fitting.cache, fitting.spec = _cache(policy), spec
        found = refusals(fitting.sampler, fitting.cache, spec)
        try:
            fitting.sampler.layout(prompts(4)[0], spec)
        except ConfigError as error:
            found.append(str(error))
        if not found:
            yield fitting


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policies", [PARTIAL, pytest.param(CACHES, marks=pytest.mark.slow)])
def test_rows_that_were_not_computed_decide_nothing(
    name: str, policies: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not refused decodes, and noise in place of logits that a forward did not give leaves
    every commit as it is."""
    wanted = prompts(4, 7)
    generator = torch.Generator().manual_seed(3)

    def noisy(*arguments: Any) -> View:
        view = seen(*arguments)
        if view.stale is None:
            return view
        noise = 9 * torch.randn(view.logits.shape, generator=generator)
        return view.with_logits(noise.where(view.stale[..., None], view.logits))

    for fitting in _legal(name, folder, policies):
        plain = fitting.decode(wanted, batch_size=min(2, fitting.batch))
        with monkeypatch.context() as patch:
            patch.setattr("dllm.engine.batch.seen", noisy)
            other = fitting.decode(wanted, batch_size=min(2, fitting.batch))
        for one, two in zip(plain, other, strict=True):
            told = type(fitting.cache).__name__, fitting.spec.attention, fitting.spec.logit_shift
            assert one.failure is None and fitting.spec.mask_id not in one.tokens, told
            assert one.tokens == two.tokens and one.trace == two.trace, told


def _consistent(outcome: Outcome, prompt: Prompt) -> None:
    """Commits fill masks, remasks take decided tokens, and the trace rebuilds the answer."""
    trace = outcome.trace
    assert trace is not None
    mask = trace.mask_id
    canvas = [mask] * prompt.gen_length
    for step, after in zip(trace.steps, trace.replay(), strict=True):
        assert len(set(step.positions)) == len(step.positions)
        inside = [at for at in step.positions if at < len(canvas)]
        assert all(canvas[at] == mask for at in inside)
        assert all(canvas[at] != mask for at in step.remasked if at < len(canvas))
        assert all(token != mask for token in step.tokens)
        canvas = after.tolist()
    assert tuple(canvas[: len(outcome.tokens)]) == outcome.tokens


def test_memory_is_written_by_the_hooks_that_may(
    fitting: Fitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`plan`, `select` and `block_done` leave it as it was."""
    kind = type(fitting.sampler)

    def watched(name: str) -> Any:
        hook = getattr(kind, name)

        def call(self: Sampler, *arguments: Any) -> Any:
            state = arguments[-1]
            before = {field.name: state[field.name].clone() for field in self.fields()}
            answer = hook(self, *arguments)
            for field, value in before.items():
                torch.testing.assert_close(state[field], value, rtol=0, atol=0, equal_nan=True)
            return answer

        return call

    for name in ("plan", "select", "block_done"):
        monkeypatch.setattr(kind, name, watched(name))
    fitting.decode(prompts(5, 7), batch_size=min(fitting.batch, 2))


class Flat(Predictor):
    """The same logits everywhere: all tokens equal, one certain, or nearly all impossible."""

    def __init__(self, model: Any, kind: str):
        super().__init__(model)
        self.kind = kind

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        prediction = super().predict(plan, store)
        if prediction is None:
            return None
        return Prediction(self._flat(prediction.logits), prediction.valid)

    def _flat(self, logits: Tensor) -> Tensor:
        if self.kind == "equal":
            flat = torch.zeros_like(logits)
            flat[..., MASK] = -1.0
        elif self.kind == "certain":
            flat = torch.full_like(logits, -1e4)
            flat[..., 5] = 1e4
        else:
            flat = torch.full_like(logits, -torch.inf)
            flat[..., 5:7] = 0.0
        return flat


@pytest.mark.parametrize("kind", ["equal", "certain", "impossible"])
def test_degenerate_predictions(fitting: Fitting, kind: str) -> None:
    outcome = fitting.decode(prompts(5), Flat(_model(fitting.spec), kind))[0]
    assert outcome.failure is None
    assert fitting.spec.mask_id not in outcome.tokens


REFUSED = set(range(2, 24, 3))


def constraint(kind: str) -> Watching:
    return Watching(REFUSED) if kind == "refusing" else Rewriting(token=7)


@pytest.mark.parametrize("kind", ["refusing", "rewriting"])
def test_constraint(fitting: Fitting, kind: str) -> None:
    """The constraint sees every write (it says so itself), whoever makes it, in every batch."""
    if kind == "refusing" and "reference" in fitting.sampler.needs:
        return  # has nothing else to say than its reference
    if fitting.spec.noise != "mask":
        return  # refused
    wanted = prompts(4, 9)
    alone = fitting.decode(wanted, constraint=constraint(kind), eos=EosPolicy.CUT)
    for prompt, outcome in zip(wanted, alone, strict=True):
        assert outcome.failure is None
        if kind == "refusing":
            assert not REFUSED & set(outcome.tokens)
        assert outcome.cost.checks >= outcome.cost.steps
        _consistent(outcome, prompt)
    assert any(outcome.cost.rejections or outcome.cost.replacements for outcome in alone)
    together = fitting.decode(
        wanted, constraint=constraint(kind), eos=EosPolicy.CUT, batch_size=fitting.batch
    )
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens
        assert one.cost.nfe == other.cost.nfe
        assert one.cost.rejections == other.cost.rejections


EXPANDING = ("low_threshold=1", "eos_threshold=0", "expansion_threshold=1", "expansion=2")


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("commits", "low_confidence", ()),
        ("edits", "llada2_edit", ()),
        ("remasks", "wino", ()),
        ("remasks", "dystruct", ("weld_threshold=1",)),
        ("insertions", "daedal", ("eos_window=2", *EXPANDING)),
        ("growth", "daedal", ()),
        ("fills", "daedal", ("eos_window=2", *EXPANDING)),
        ("growth", "rho_eos", ()),
        ("cuts", "rho_eos", ("low_density=0", "high_density=0")),
        ("cuts", "eotp", ()),
        ("cuts", "window", ("early_stop=true", "refresh_cycle=4")),
        ("cuts", "wedlm", ()),
        ("drafts", "freedave", ()),
    ],
)
def test_every_kind_of_write_is_reviewed(
    folder: Path, kind: str, name: str, options: Sequence[str]
) -> None:
    fitting = Fitting(name, folder, options=[f"sampler.{option}" for option in options])
    watching = Watching({2})
    fitting.decode(prompts(*range(3, 11)), constraint=watching)
    assert kind in watching.kinds


def _first_with(policy: str, folder: Path) -> Fitting:
    for name in ("threshold", "wedlm", *NAMES):
        try:
            return Fitting(name, folder, [policy])
        except AssertionError:
            continue
    raise AssertionError(f"{policy} goes with no sampler")


@pytest.mark.parametrize("policy", CACHES)
def test_constraint_with_every_cache(policy: str, folder: Path) -> None:
    fitting = _first_with(policy, folder)
    if fitting.spec.noise != "mask":
        return  # refused
    for kind in ("refusing", "rewriting"):
        wanted = prompts(4, 8, 11)
        alone = fitting.decode(wanted, constraint=constraint(kind))
        together = fitting.decode(wanted, constraint=constraint(kind), batch_size=fitting.batch)
        assert [o.tokens for o in alone] == [o.tokens for o in together]
        assert not any(outcome.failure for outcome in alone)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_comment_and_every_file_a_card(name: str) -> None:
    text = (CONF / "sampler" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()) < 25
    target = compose([f"sampler={name}"]).sampler["_target_"]
    found = importlib.util.find_spec(target.rsplit(".", 1)[0])
    assert found is not None and found.origin is not None
    card = ast.get_docstring(ast.parse(Path(found.origin).read_text()))
    assert card and len(card) > 100


@pytest.mark.parametrize("name", NAMES)
def test_what_is_certain_comes_out_right(name: str, tmp_path: Path) -> None:
    """With a model that errs nowhere and a single possible answer, no rule errs either."""
    text = "ABCDEFGHIJKLMNOP"
    fitting = Fitting(name, tmp_path, policies=["none"])
    if fitting.spec.noise != "mask":
        return  # the oracle would take random tokens for decided ones
    oracle = ToyOracle({text: 1.0})
    predictor, other = (OraclePredictor(oracle, spec) for spec in (fitting.spec, AUTOREGRESSIVE))
    reference = tuple(FIRST + i for i in range(len(text)))
    prompt = Prompt("one", PROMPT, len(text), reference=reference)
    (outcome,) = fitting.decode([prompt], predictor, other)
    assert outcome.failure is None
    assert outcome.phases()[0].tokens[: len(text)] == reference
