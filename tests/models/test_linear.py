"""Products with weights: the host's faster kernel gives what torch's own gives."""

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from dllm.models.linear import Linear, product


@pytest.mark.parametrize("shape", [(0, 24), (24,), (5, 24), (2, 0, 24), (2, 3, 24)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_torchs_own(shape: tuple[int, ...], biased: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator).to(dtype) for size in (shape, (40, 24), (40,))
    )
    with torch.inference_mode():
        found = product(x, weight, bias if biased else None)
    assert found.dtype == dtype
    torch.testing.assert_close(found, F.linear(x, weight, bias if biased else None))


def test_strides_of_either_side_do_not_matter() -> None:
    wide, tall = torch.randn(3, 6, 48), torch.randn(80, 48)
    x, weight = wide.transpose(0, 1)[..., :24], tall[::2, :24]
    with torch.inference_mode():
        torch.testing.assert_close(product(x, weight), F.linear(x, weight))


def test_a_bias_is_read_as_it_lies() -> None:
    x, weight, wide = torch.randn(3, 16), torch.randn(8, 16), torch.randn(16)
    with torch.inference_mode():
        found = product(x, weight, wide[::2])
        torch.testing.assert_close(found, F.linear(x, weight, wide[::2].clone()))


def test_weights_that_the_faster_kernel_only_loops_over_are_left_to_torch() -> None:
    wide = torch.randn(80, 48)
    for weight, faster in ((wide, True), (wide[:, :24], False), (wide[:, ::2], False)):
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as called:
            product(torch.randn(3, weight.shape[1]), weight)
        names = {event.name for event in called.events() or ()}
        assert ("mkldnn::_linear_pointwise" in names) == faster


def test_a_product_is_learnt_through() -> None:
    layer, x = Linear(24, 40), torch.randn(5, 24, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None and layer.weight.grad is not None and layer.bias.grad is not None


def test_a_meta_model_has_shapes() -> None:
    with torch.device("meta"), torch.inference_mode():
        assert Linear(24, 40)(torch.empty(5, 24)).shape == (5, 40)
