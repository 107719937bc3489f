"""Models of each kind of configuration, with every weight random, and how far two of them are apart."""

import torch

from kimi_mini import KimiConfig, KimiMini

YARN = {
    "type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 1.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
BASE = KimiConfig.preset("nano", vocab_size=128, initializer_range=0.12, max_position_embeddings=128)
CONFIGS = {
    "plain": BASE,
    "q_lora": BASE.replace(q_lora_rank=32),
    "yarn": BASE.replace(rope_scaling=YARN),
    "yarn_ramp": BASE.replace(q_lora_rank=32, rope_theta=1e4, rope_scaling={**YARN, "beta_fast": 32.0}),
    "yarn_unequal_mscale": BASE.replace(rope_scaling={**YARN, "mscale": 0.7, "mscale_all_dim": 0.3}),
    "groups": BASE.replace(n_group=4, topk_group=2),
    "two_dense": BASE.replace(first_k_dense_replace=2, n_shared_experts=2),
    "eps": BASE.replace(rms_norm_eps=1e-2, norm_topk_prob=False),
    "everything": BASE.replace(
        q_lora_rank=24,
        rope_scaling=YARN,
        n_group=2,
        topk_group=1,
        v_head_dim=24,
        first_k_dense_replace=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    ),
}


def randomise(model):
    """Norm weights and biases too, so that an error in any of them shows."""
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, 1.0, 0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0.0, 0.2)


def ours(config, seed=0):
    torch.manual_seed(seed)
    model = KimiMini(config).eval()
    randomise(model)
    return model


def ids(rows=2, length=48, seed=1):
    return torch.randint(0, BASE.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def difference(a, b, length=48):
    with torch.no_grad():
        first, second = a(ids(length=length)).logits, b(ids(length=length)).logits
    assert second.std() > 0.3  # logits that say something
    return (first - second).abs().max().item()
