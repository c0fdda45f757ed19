"""Replays the recorded forwards of one model folder and compares logits.

A numerics folder holds a tiny checkpoint in its family's public layout, numerics.json (the calls,
in order) and expected.safetensors (inputs and logits made by the authors' own modelling files).
Every call runs through the predictor and the key/value store that decoding uses, cached ones
included.
"""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dllm.conform.recorded import FileResult, Verdict
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.config_reader import Overrides
from dllm.models.loading import load_model
from dllm.models.masks import block_causal
from dllm.step.plan import ForwardKind, Plan


CALLS = "numerics.json"
TENSORS = "expected.safetensors"


@dataclass(frozen=True)
class CallResult:
    """One recorded call against ours."""

    name: str
    max_abs_difference: float
    tolerance: float
    argmax_differences: int = 0
    """Positions whose predicted token, after the family's shift, is another one."""

    @property
    def passed(self) -> bool:
        # A NaN is no pass: it fails every comparison.
        return self.max_abs_difference <= self.tolerance and self.argmax_differences == 0

    @property
    def difference(self) -> str | None:
        return None if self.passed else f"{self.name}: off by {self.max_abs_difference:.2e}"


def is_numerics_folder(folder: str | Path) -> bool:
    """Checkpoints without recorded calls (those of the traces) are none."""
    return (Path(folder) / CALLS).is_file()


def check(folder: str | Path) -> list[CallResult]:
    """One result per recorded call, and one per recorded equality of two calls.

    Raises `ConfigError` where the folder is no numerics folder or its family is unknown.
    """
    folder = Path(folder)
    if not is_numerics_folder(folder):
        raise ConfigError(f"{folder} holds no {CALLS}")
    record = json.loads((folder / CALLS).read_text())
    # Several public configs carry no mask id; the recording says which one it used.
    overrides = Overrides(mask_id=record["facts"]["mask_token_id"])
    replay = _Replay(
        Predictor(load_model(folder, overrides=overrides)),
        load_file(folder / TENSORS),
        capacity=max(call["keys"] for call in record["calls"]),
    )
    return [result for call in record["calls"] for result in replay.run(call)]


def compare(folder: Path) -> FileResult:
    """The calls of a folder as the cases of a file."""
    try:
        calls = check(folder)
    except ConfigError as error:
        return FileResult(folder, Verdict.FAILED, reason=str(error))
    return FileResult.of(folder, (call.difference for call in calls))


class _Replay:
    def __init__(self, predictor: Predictor, tensors: dict[str, Tensor], capacity: int):
        self.predictor = predictor
        self.spec = predictor.spec
        self.tensors = tensors
        self.capacity = capacity
        self.states: dict[str, KVStore] = {}
        self.logits: dict[str, Tensor] = {}

    def run(self, call: dict[str, Any]) -> list[CallResult]:
        store = self._state(call)
        plan = self._plan(call)
        rows = self.tensors[call["rows"]] if "rows" in call else torch.arange(plan.tokens.shape[1])
        # The row of slot s predicts slot s + shift: asked that way, the raw rows come back.
        raw = plan.slots[:, rows] + self.spec.logit_shift
        found = self._logits(plan, raw, store)
        expected = self.tensors[call["logits"]]
        if "valid" in call:
            valid = self.tensors[call["valid"]].bool()
            difference = (found - expected)[valid]
        else:
            difference = found - expected
        self.logits[call["name"]] = found
        tolerance = call["max_abs_tolerance"]
        worst = difference.abs().max().item()
        results = [CallResult(call["name"], worst, tolerance, self._argmax_differences(call, plan))]
        if call["cache_out"] is not None:
            self._keep(call)
        if "equal_rows" in call:
            other, start = call["equal_rows"]["call"], call["equal_rows"]["from_row"]
            worst = (found[:, start:] - self.logits[other]).abs().max().item()
            results.append(CallResult(f"{call['name']} = {other}", worst, tolerance))
        return results

    def _state(self, call: dict[str, Any]) -> KVStore:
        """A fresh copy of the state the call starts from, of which a call keeps nothing by
        itself."""
        batch = self.tensors[call["input_ids"]].shape[0]
        if call["cache_in"] is None:
            store = KVStore(self.spec, batch, self.capacity, torch.float32)
        else:
            store = copy.deepcopy(self.states[call["cache_in"]])
        if call["cache_out"] is not None:
            self.states[call["cache_out"]] = store
        return store

    def _keep(self, call: dict[str, Any]) -> None:
        store = self.states[call["cache_out"]]
        dropped = torch.arange(self.capacity) >= call["cache_out_len"]
        store.invalidate(dropped.expand(store.valid.shape))

    def _plan(self, call: dict[str, Any]) -> Plan:
        tokens = self.tensors[call["input_ids"]].long()
        batch, count = tokens.shape
        start, end = call["slots"]
        positions = self.tensors[call["position_ids"]].long().expand(batch, count)
        visible = (torch.arange(self.capacity) < call["keys"]).expand(batch, -1)
        return Plan(
            kind=ForwardKind.STEP,
            tokens=tokens,
            positions=positions,
            slots=torch.arange(start, end).expand(batch, -1),
            fed=torch.full((batch,), count).numpy(),
            padded=False,
            visible=visible,
            within=self._within(call, batch),
            write="none" if call["cache_out"] is None else "all",
        )

    def _within(self, call: dict[str, Any], batch: int) -> Any:
        start, end = call["slots"]
        if "visible" in call:
            matrix = self.tensors[call["visible"]].bool()
            if start and not matrix[..., :start].all():
                raise ConfigError(
                    f"call {call['name']}: a stored slot is hidden from some rows only"
                )
            return matrix[..., start:end].expand(batch, -1, -1)
        if call["attention"] == "block_causal":
            slots = torch.arange(start, end)
            return block_causal(slots, slots, call["block_size"]).expand(batch, -1, -1)
        return call["attention"]

    def _logits(self, plan: Plan, wanted: Tensor, store: KVStore) -> Tensor:
        prediction = self.predictor.predict(replace(plan, logits_for=wanted), store)
        assert prediction is not None
        return prediction.logits

    def _argmax_differences(self, call: dict[str, Any], plan: Plan) -> int:
        if "aligned_argmax" not in call:
            return 0
        expected = self.tensors[call["aligned_argmax"]].long()
        found = self._logits(plan, plan.slots, self._state({**call, "cache_out": None}))
        return int(((found.argmax(dim=-1) != expected) & (expected >= 0)).sum())
