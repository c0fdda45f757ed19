"""The lm-evaluation-harness with our decoding: its model `dllm`.

Every option of `scripts.run` can be given among the model's arguments (`model=tiny-llada`,
`sampler=localleap`, `sampler.radius=4`), and so can those of this page. Needs the optional package
lm-eval. What was decoded is written to the run's folder, one line per request.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from omegaconf import DictConfig, OmegaConf

from dllm import config as configuration
from dllm.engine.loop import Decoder
from dllm.engine.setting import DoesNotFit
from dllm.errors import ConfigError
from dllm.models.chat import Message
from dllm.runs.beside import baseline_name
from dllm.runs.checkpoint import Checkpoint
from dllm.runs.decoding import decoder, fitting
from dllm.runs.grading import answer_tokens
from dllm.runs.likelihood import Estimator
from dllm.runs.others import others
from dllm.runs.parts import build_parts
from dllm.step.canvas import Prompt


OWN = {"draws": 128, "check_greedy": False}
"""Arguments beyond the configuration: maskings per likelihood; whether the answer is decoded too to
tell if it is the greedy one (as many forwards as it has tokens)."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names that tasks of the harness give an answer's length, the first one counts."""


def configuration_of(arguments: Mapping[str, Any]) -> DictConfig:
    """The run's configuration from the model's arguments."""
    given = {name: value for name, value in arguments.items() if name not in OWN}
    spelt = {True: "true", False: "false", None: "null"}
    values = [
        f"{name}={spelt[value] if value is None or isinstance(value, bool) else value}"
        for name, value in given.items()
    ]
    config = configuration.compose(values)
    configuration.check_complete(config)
    return config


def folder_of(config: DictConfig) -> Path:
    """Where the run is written, whatever the batch."""
    config = config.copy()
    config.batch_size = 1
    return Path(config.output) / "lm_eval" / configuration.fingerprint(config)


@register_model("dllm")
class DllmModel(LM):
    """A model, sampler, cache and constraint as the harness sees them.

    The harness always names a `device`; ours is the option `model.device`.
    """

    def __init__(
        self,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if batch_size is not None:
            arguments["batch_size"] = batch_size
        self.config = configuration_of(arguments)
        own = {**OWN, **{name: arguments[name] for name in OWN if name in arguments}}
        if not isinstance(own["draws"], int) or own["draws"] < 2:
            raise ConfigError(f"draws={own['draws']} is no whole number >= 2")
        self.config.trace = False  # no request's trace is kept
        parts = build_parts(self.config)
        checkpoint = Checkpoint(parts.model)
        parts = replace(parts, sampler=fitting(self.config, parts, checkpoint))
        beside = others(self.config, parts.sampler, checkpoint)
        self.decoder = decoder(self.config, parts, checkpoint, beside)
        self.decoder.check_parts()
        self.model, self.tokenizer = checkpoint.predictor.model, checkpoint.tokenizer
        self.estimator = Estimator(
            model=self.model,
            draws=own["draws"],
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        self.greedy = self._greedy_decoder() if own["check_greedy"] else None
        self.folder = folder_of(self.config)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(self.config, resolve=True))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """One answer per request. A prompt that does not fit the model is named, counted and
        answered with an empty text: it is not cut."""
        prompts, answers = {}, dict.fromkeys(range(len(requests)), "")
        for number, request in enumerate(requests):
            context, options = _arguments(request)
            if options.get("do_sample") is not False and options.get("temperature", 0) > 0:
                raise ConfigError(
                    f"request {number} asks for temperature={options['temperature']}: randomness "
                    "is the sampler's affair, e.g. sampler.proposer.temperature"
                )
            given = {name: options[name] for name in LENGTHS if options.get(name) is not None}
            name, length = next(iter(given.items()), ("gen_length", self.config.gen_length))
            if length < 1:
                raise ConfigError(f"request {number}: {name}={length} is not >= 1")
            prompt = Prompt(str(number), tuple(self.tokenizer.encode(context)), length)
            try:
                self.decoder.admit(prompt)
                prompts[number] = prompt
            except DoesNotFit as error:
                self._note(number, request, {"failure": str(error)})
        for outcome in self.decoder.decode(list(prompts.values())):
            number = int(outcome.sample_id)
            request = requests[number]
            tokens = answer_tokens(outcome.tokens, self.model.spec)
            text = before(self.tokenizer.decode(tokens), _arguments(request)[1].get("until"))
            answers[number] = text
            self.cache_hook.add_partial("generate_until", request.args, text)
            cost = outcome.cost
            verified = {f"{m} {kind}": n for (m, kind), n in cost.other_forwards.items()}
            done = {"output": text, "nfe": cost.nfe, "effective": len(tokens)}
            counted = {"aux_forwards": cost.aux_forwards, "other_forwards": verified}
            seconds = {"seconds": cost.seconds, "failure": outcome.failure}
            self._note(number, request, {**done, **counted, **seconds})
        lost = len(requests) - len(prompts)
        if lost:
            print(f"warning: {lost} of {len(requests)} prompts do not fit", file=sys.stderr)
        return list(answers.values())

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(estimate, is the answer the greedy one); standard errors are in the run's folder.

        What does not fit the model is named, counted and given no probability: of a question none
        of whose choices fits, the harness takes the first.
        """
        found, lost = [], 0
        if self.greedy is None:
            print(
                "note: check_greedy=false: no answer is called the greedy one, so what a task "
                "counts by that is 0",
                file=sys.stderr,
            )
        for number, request in enumerate(requests):
            context, continuation = _arguments(request)
            kept = context.rstrip(" ")  # a space belongs to the word after it
            context, continuation = kept, context[len(kept) :] + continuation
            whole = self.tokenizer.encode(context + continuation)
            before_it = self.tokenizer.encode(context) if context else []
            answer = whole[len(before_it) :]
            prompt = before_it or [self.model.spec.eos_ids[0]]
            if (size := len(prompt) + len(answer)) > self.model.spec.max_positions:
                lost += 1
                found.append((float("-inf"), False))
                self._note(number, request, {"failure": self._too_long(size)})
                continue
            estimate = self.estimator.of(prompt, answer)
            greedy = self._is_greedy(prompt, answer)
            found.append((estimate.value, greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, found[-1])
            self._note(number, request, {"value": estimate.value, "error": estimate.error})
        if lost:
            print(f"warning: {lost} of {len(requests)} texts do not fit", file=sys.stderr)
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Of whole texts, after an end token, as long as they fit the model."""
        start = [self.model.spec.eos_ids[0]]
        values = []
        for number, request in enumerate(requests):
            answer = self.tokenizer.encode(_arguments(request)[0])
            if len(answer) >= self.model.spec.max_positions:
                raise ConfigError(f"request {number}: {self._too_long(len(answer) + 1)}")
            estimate = self.estimator.of(start, answer)
            values.append(estimate.value)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, estimate.value)
            self._note(number, request, {"value": estimate.value, "error": estimate.error})
        return values

    def apply_chat_template(
        self, chat_history: Sequence[Message], add_generation_prompt: bool = True
    ) -> str:
        if add_generation_prompt:
            return self.tokenizer.render(list(chat_history))
        *before, begun = chat_history  # the answer's beginning is given
        return self.tokenizer.render(before) + begun["content"]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.tokenizer.template

    @property
    def tokenizer_name(self) -> str:
        return str(self.config.model.name)

    def _too_long(self, size: int) -> str:
        positions = self.model.spec.max_positions
        return f"a text of {size} tokens exceeds the model's {positions} positions"

    def _greedy_decoder(self) -> Decoder:
        """One token per step, as the baseline."""
        rule = baseline_name(self.model.spec)
        options = [f"sampler={rule}", "sampler.region.block_length=null", "cache=none"]
        if self.model.spec.attention == "block_causal":
            options[1] = "sampler/region=aligned"
        config = configuration.compose(options)
        sampler = configuration.build(config.sampler, "sampler")
        cache = configuration.build(config.cache, "cache")
        return Decoder(self.decoder.predictor, sampler, cache)

    def _is_greedy(self, prompt: Sequence[int], answer: Sequence[int]) -> bool:
        if self.greedy is None:
            return False
        if not answer:
            return True
        (outcome,) = self.greedy.decode([Prompt("greedy", tuple(prompt), len(answer))])
        return list(outcome.tokens[: len(answer)]) == list(answer)

    def _note(self, number: int, request: Instance, found: Mapping[str, Any]) -> None:
        """One line of the run's folder, flushed."""
        line = {"task": request.task_name, "doc": request.doc_id, "request": number, **found}
        with open(self.folder / "requests.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def _arguments(request: Instance) -> Any:
    return request.args


def before(text: str, stops: Sequence[str] | str | None) -> str:
    """The text before the first of the stop texts; an empty one stops nothing."""
    found = [stops] if isinstance(stops, str) else stops or ()
    return text[: min((at for s in found if s and (at := text.find(s)) >= 0), default=None)]
