"""The sizes that have a name, as plain numbers: ours, and the models that they are modelled on."""

YARN = {"type": "yarn", "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0}

HF_DEFAULTS = dict(  # DeepSeek-V3 as transformers' config class has it
    vocab_size=129280,
    hidden_size=7168,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    num_hidden_layers=61,
    first_k_dense_replace=3,
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    n_routed_experts=256,
    num_experts_per_tok=8,
    n_group=8,
    topk_group=4,
    routed_scaling_factor=2.5,
    rope_theta=10000.0,
    max_position_embeddings=4096,
    bos_token_id=0,
    eos_token_id=1,
)
KIMI = dict(
    vocab_size=163840,
    bos_token_id=163584,
    eos_token_id=163585,
    pad_token_id=163839,
    first_k_dense_replace=1,
    n_group=1,
    topk_group=1,
    rope_theta=50000.0,
)  # what Kimi's models share

PRESETS = {
    # Two CPU cores: rows of whole 16 bytes everywhere (60 * 4), which grouped_mm needs.
    "nano": dict(),
    # For an agent that reads: a tool is found by its description, then its name is copied. One layer and one head more
    # than the nano; the dense layer is as wide as the experts that a token sees: (3 + 1) * 80.
    "micro": dict(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=320,
        moe_intermediate_size=80,
        kv_lora_rank=64,
    ),
    # One GPU. The dense layer is as wide as the experts that a token sees: (6 + 1) * 256.
    "mini": dict(
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        intermediate_size=1792,
        moe_intermediate_size=256,
        n_routed_experts=64,
        num_experts_per_tok=6,
        routed_scaling_factor=2.446,
        q_lora_rank=192,
        kv_lora_rank=128,
        qk_nope_head_dim=64,
        qk_rope_head_dim=32,
        v_head_dim=64,
    ),
    # One GPU of 80 GB: 1.2 billion parameters, 190 million activated; dense layer (6 + 1) * 512.
    "midi": dict(
        hidden_size=1024,
        num_hidden_layers=12,
        num_attention_heads=16,
        intermediate_size=3584,
        moe_intermediate_size=512,
        n_routed_experts=64,
        num_experts_per_tok=6,
        routed_scaling_factor=2.446,
        q_lora_rank=384,
        kv_lora_rank=256,
        qk_nope_head_dim=96,
        qk_rope_head_dim=32,
        v_head_dim=128,
    ),
    "moonlight_16b": HF_DEFAULTS
    | KIMI
    | dict(
        hidden_size=2048,
        intermediate_size=11264,
        moe_intermediate_size=1408,
        num_hidden_layers=27,
        num_attention_heads=16,
        n_shared_experts=2,
        n_routed_experts=64,
        num_experts_per_tok=6,
        routed_scaling_factor=2.446,
        q_lora_rank=None,
        rms_norm_eps=1e-5,
        max_position_embeddings=8192,
    ),
    "k2": HF_DEFAULTS
    | KIMI
    | dict(
        num_attention_heads=64,
        n_routed_experts=384,
        routed_scaling_factor=2.827,
        max_position_embeddings=131072,
        rope_scaling=YARN | dict(factor=32.0, beta_fast=1.0, beta_slow=1.0),
    ),
    "deepseek_v3": HF_DEFAULTS
    | dict(
        max_position_embeddings=163840, rope_scaling=YARN | dict(factor=40.0, beta_fast=32.0, beta_slow=1.0)
    ),
}
