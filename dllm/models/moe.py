"""Mixture-of-experts feed-forward: the two published routers and grouped expert computation.

Tokens are sorted by expert and each expert that was hit runs once over its tokens, so the number of
matrix products does not depend on the number of tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dllm.models.linear import product
from dllm.models.spec import Activation, MoeSpec
from dllm.models.swiglu import GATES, SwiGLU


def softmax_router(logits: Tensor, spec: MoeSpec) -> tuple[Tensor, Tensor]:
    """Experts and weights, each [tokens, top_k], of the largest probabilities (LLaDA-MoE,
    Qwen3-MoE).

    Softmax in float32; the probabilities are used as they are unless `renormalise`.
    """
    scores = logits.float().softmax(dim=-1)
    weights, experts = scores.topk(spec.top_k, dim=-1)
    if spec.renormalise:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return experts, weights


def sigmoid_group_router(
    logits: Tensor, bias: Tensor | None, spec: MoeSpec
) -> tuple[Tensor, Tensor]:
    """Experts and weights, each [tokens, top_k], of LLaDA2.

    Scores are sigmoids in float32; `bias` influences the choice only. The groups with the largest
    sum of their two best biased scores are kept, so the single best expert may be dropped.
    """
    scores = logits.float().sigmoid()
    choice = scores if bias is None else scores + bias
    grouped = choice.unflatten(-1, (spec.n_groups, -1))  # [tokens, groups, experts / groups]
    strength = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
    kept = torch.zeros_like(strength, dtype=torch.bool)
    kept.scatter_(-1, strength.topk(spec.kept_groups, dim=-1).indices, True)
    choice = grouped.masked_fill(~kept[..., None], -torch.inf).flatten(-2)
    experts = choice.topk(spec.top_k, dim=-1, sorted=False).indices
    weights = scores.gather(-1, experts)
    if spec.renormalise:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return experts, weights * spec.scale


class Experts(nn.Module):
    """Router, experts and optional shared expert of one layer."""

    expert_bias: Tensor

    def __init__(self, d_model: int, spec: MoeSpec):
        super().__init__()
        self.spec = spec
        self.router = nn.Parameter(torch.empty(spec.n_experts, d_model))
        self.gate_up = nn.Parameter(torch.empty(spec.n_experts, 2 * spec.d_expert, d_model))
        """Gate rows first, then up rows."""
        self.down = nn.Parameter(torch.empty(spec.n_experts, d_model, spec.d_expert))
        if spec.expert_bias:
            # A buffer: it stays float32 when the model is loaded in another dtype.
            self.register_buffer("expert_bias", torch.zeros(spec.n_experts))
        self.shared = SwiGLU(d_model, spec.d_shared) if spec.d_shared else None
        for weight in (self.router, self.gate_up, self.down):
            if weight.device.type != "meta":
                nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen experts and their weights, each [tokens, top_k], for x [tokens, d_model]."""
        if self.spec.router == "softmax":
            return softmax_router(product(x, self.router), self.spec)
        logits = product(x.float(), self.router.float())
        bias = self.expert_bias if self.spec.expert_bias else None
        return sigmoid_group_router(logits, bias, self.spec)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        experts, weights = self.route(flat)
        if self.spec.accumulate_fp32:
            # LLaDA2: weighted and summed in float32, cast once.
            outputs = self.compute(flat, experts).float() * weights[..., None]
            y = outputs.sum(dim=1).to(x.dtype)
        else:
            # The reference adds one expert after the other, ascending, in the model dtype.
            experts, order = experts.sort(dim=-1)
            weights = weights.gather(-1, order).to(x.dtype)
            outputs = self.compute(flat, experts) * weights[..., None]
            y = outputs[:, 0]
            for rank in range(1, self.spec.top_k):
                y = y + outputs[:, rank]
        if self.shared is not None:
            y = y + self.shared(flat)
        return y.view(x.shape)

    def compute(self, x: Tensor, experts: Tensor) -> Tensor:
        """Output of each chosen expert: x [tokens, d_model], experts [tokens, top_k] ->
        [tokens, top_k, d_model]."""
        tokens, top_k = experts.shape
        flat = experts.flatten()
        order = flat.argsort(stable=True)
        counts = flat.bincount(minlength=self.spec.n_experts)
        run = one_kernel if has_kernel(x, self.spec) else one_product_each
        done = run(x[order // top_k], counts, self.gate_up, self.down, self.spec.activation)
        out = torch.empty_like(done)
        out[order] = done
        return out.view(tokens, top_k, x.shape[-1])


def one_product_each(
    rows: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """Rows [rows, d_model], sorted by expert with `counts` [experts] rows each, through them."""
    out = torch.empty_like(rows)
    start = 0
    for expert, count in enumerate(counts.tolist()):
        if count:
            part = slice(start, start + count)
            gate, up = product(rows[part], gate_up[expert]).chunk(2, dim=-1)
            out[part] = product(GATES[activation](gate) * up, down[expert])
            start += count
    return out


def one_kernel(
    rows: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor, activation: Activation
) -> Tensor:
    """The same by one kernel over all experts, without asking the device for the counts."""
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(rows, gate_up.mT, offs=ends).chunk(2, dim=-1)
    return F.grouped_mm(GATES[activation](gate) * up, down.mT, offs=ends)


def has_kernel(x: Tensor, spec: MoeSpec) -> bool:
    """Whether `one_kernel` runs: torch >= 2.10, bfloat16 rows of whole 16 bytes, NVIDIA Hopper."""
    return (
        x.is_cuda
        and x.dtype == torch.bfloat16
        and hasattr(F, "grouped_mm")
        and x.shape[-1] % 8 == 0
        and spec.d_expert % 8 == 0
        and torch.cuda.get_device_capability(x.device) >= (9, 0)
    )
