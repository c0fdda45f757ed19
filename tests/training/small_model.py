"""The smallest model that still has every part of the embedded ones."""

from dllm.models.spec import ModelSpec


SPEC = ModelSpec(
    family="llada",
    vocab_size=854,
    d_model=32,
    n_layers=2,
    n_heads=2,
    n_kv_heads=2,
    head_dim=16,
    d_ff=48,
    norm_eps=1e-5,
    rope_theta=1e4,
    max_positions=512,
    mask_id=0,
    eos_ids=(1,),
    pad_id=1,
    rope_fp32=True,
    tied_embeddings=True,
)
