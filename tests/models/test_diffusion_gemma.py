"""DiffusionGemma read from transformers' own checkpoint: the same logits, text only."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gemma_checkpoint import BLOCK, IMAGE, gemma_rule, stock, write_checkpoint
from tiny_checkpoints import CONFIGS, tiny_model
from tiny_decoding import sampler
from transformers import DiffusionGemmaConfig

from dllm.cache.encoder import EncoderCache
from dllm.cache.none import NoCache
from dllm.config import compose
from dllm.engine.loop import Decoder
from dllm.errors import ConfigError
from dllm.forward.predictor import Predictor
from dllm.forward.store import KVStore
from dllm.models.config_reader import Overrides
from dllm.models.loading import load_model, read_spec, save_model, spec_from_config
from dllm.models.presets import preset_config
from dllm.models.sizes import sizes
from dllm.models.spec import NO_MASK
from dllm.models.transformer import Reading, Transformer
from dllm.runs.beside import baseline_of
from dllm.runs.likelihood import Estimator
from dllm.step.canvas import Prompt
from dllm.step.plan import Plan
from dllm.step.prediction import Prediction


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("gemma"))


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("length", [3, 13])
def test_logits(folder: Path, length: int, conditioned: bool) -> None:
    """Of a prompt shorter and longer than the sliding window."""
    model, generator = load_model(folder), torch.Generator().manual_seed(length)
    spec = model.spec
    prompt = torch.randint(3, 60, (1, length), generator=generator)
    block = torch.randint(spec.vocab_size, (1, BLOCK), generator=generator)
    logits = None
    if conditioned:
        logits = 3 * torch.randn(1, BLOCK, spec.vocab_size, generator=generator)
    with torch.no_grad():
        expected = stock(folder)(
            input_ids=prompt, decoder_input_ids=block, self_conditioning_logits=logits
        ).logits
    at = torch.arange(length + BLOCK)[None]
    seen = torch.where(at >= length, length + BLOCK, at + 1)
    reading = Reading(at >= length, at, logits, at[:, length:])
    mask = (at[:, None] < seen[:, :, None])[:, None]
    hidden = model.hidden(torch.cat((prompt, block), 1), at, mask, reading=reading)
    found = model.logits(hidden[:, length:])
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_spec_and_the_way_back(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    spec = model.spec
    assert spec.mask_id == NO_MASK and spec.noise == "uniform"
    assert (spec.block_size, spec.image_ids) == (BLOCK, (IMAGE, 60, 61))
    assert [spec.kv_shape(layer) for layer in range(3)] == [(2, 8), (2, 8), (1, 16)]
    save_model(model, tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert again.spec == spec
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    # And transformers reads what we write.
    text = DiffusionGemmaConfig.from_pretrained(tmp_path / "again").text_config
    assert (text.per_layer_config[2].head_dim, text.per_layer_config[0].head_dim) == (16, 8)


def test_another_network_is_refused() -> None:
    for key, value, told in (
        ("use_bidirectional_attention", "all", "causal reading"),
        ("hidden_activation", "silu", "hidden_activation='silu'"),
        ("layer_types", ["full_attention", "full_attention", "sliding_attention"], "layer_types"),
    ):
        config = dict(CONFIGS["diffusion_gemma"])
        config["text_config"] = {**config["text_config"], key: value}
        with pytest.raises(ConfigError, match=told):
            spec_from_config(config)
    with pytest.raises(ConfigError, match=r"model\.mask_id=4: .* has no mask token"):
        spec_from_config(CONFIGS["diffusion_gemma"], Overrides(mask_id=4))


def test_the_published_size_is_that_of_its_name() -> None:
    """26 B parameters, 4 B of which a token passes through."""
    size = sizes(spec_from_config(preset_config("diffusiongemma-26b-a4b")))
    assert 25e9 < size.parameters < 27e9
    assert 3.5e9 < size.active < 4.5e9


def test_images_are_refused(folder: Path) -> None:
    decoder = Decoder(Predictor(load_model(folder)), gemma_rule(), NoCache())
    with pytest.raises(ConfigError, match=f"token {IMAGE} of the prompt stands for an image"):
        list(decoder.decode([Prompt("one", (5, IMAGE, 7), BLOCK)]))


class Recording(Predictor):
    """Keeps what it predicts."""

    def __init__(self, model: Transformer):
        super().__init__(model)
        self.seen: list[torch.Tensor] = []

    def predict(self, plan: Plan, store: KVStore | None) -> Prediction | None:
        prediction = super().predict(plan, store)
        if prediction is not None:
            self.seen.append(prediction.logits)
        return prediction


@pytest.mark.parametrize("lengths", [(3, 13, 7), (4,)])
def test_the_encoder_cache_is_exact(folder: Path, lengths: Sequence[int]) -> None:
    model = load_model(folder)
    generator = torch.Generator().manual_seed(1)
    prompts = [
        Prompt(str(i), tuple(torch.randint(3, 60, (n,), generator=generator).tolist()), 2 * BLOCK)
        for i, n in enumerate(lengths)
    ]
    rule = gemma_rule("sampler.max_denoising_steps=3")
    found = []
    for cache in (NoCache(), EncoderCache()):
        predictor = Recording(model)
        decoder = Decoder(predictor, rule, cache, batch_size=len(lengths))
        outcomes = {o.sample_id: o.tokens for o in decoder.decode(prompts)}
        found.append((predictor.seen, outcomes))
    (plain, tokens), (cached, same) = found
    assert tokens == same and len(plain) == len(cached) == 6
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_what_needs_a_mask_token_says_so() -> None:
    model = tiny_model("diffusion_gemma")
    with pytest.raises(ConfigError, match=r"baseline=true: .* use baseline=false"):
        baseline_of(compose(["sampler=diffusion_gemma"]), model.spec)
    with pytest.raises(ConfigError, match="has no mask token"):
        Estimator(model=model, draws=4, batch_size=2, seed=0)


def test_rules_and_models_of_the_other_noise_are_refused_by_name() -> None:
    model = tiny_model("diffusion_gemma")
    decoder = Decoder(Predictor(model), sampler("sampler=threshold"), NoCache())
    told = r"sampler=Threshold decodes canvases of masks; those of the diffusion_gemma model are"
    with pytest.raises(ConfigError, match=told):
        decoder.check_parts()
    decoder = Decoder(Predictor(tiny_model("llada")), gemma_rule(), NoCache())
    with pytest.raises(ConfigError, match="sampler=DiffusionGemma decodes canvases of random"):
        decoder.check_parts()


def test_a_folder_tells_its_ends_of_turn(folder: Path) -> None:
    spec = read_spec(folder)
    assert spec.eos_ids == (1, 9)
    assert replace(spec, eos_ids=(1,)) == read_spec(folder, Overrides(eos_ids=(1,)))
