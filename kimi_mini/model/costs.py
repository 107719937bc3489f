"""What a model of given sizes costs, without building it: parameters, FLOPs, bytes of weights and cache.

Sources: Kimi K2 report (arXiv 2507.20534) table 2; DeepSeek-V3 report (2412.19437); Moonlight report
(2502.16982); Kimi K2 Thinking's quantisation config for INT4.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """Bytes of one weight, its share of the scales taken in: of routed experts; of attention, shared expert and dense
    layer. Tables, router and norms stay in bf16. fp8: products run at a card's rate for fp8, else for bf16."""

    experts: float
    rest: float
    fp8: bool = False


FORMATS = {
    "bf16": Format(2, 2),
    "fp8": Format(1 + 4 / 128**2, 1 + 4 / 128**2, fp8=True),  # an fp32 scale for a block of 128 x 128
    "int4": Format(0.5 + 2 / 32, 2),  # routed experts alone: half a byte, and a bf16 scale for a group of 32
}


class Costs:
    """Mixed into KimiConfig: counts from its fields."""

    def count_parameters(self) -> ParameterCount:
        """Parameters of the whole model, without building it. The router bias is a buffer and not counted."""
        h, heads = self.hidden_size, self.num_attention_heads
        query = (
            h * heads * self.qk_head_dim
            if self.q_lora_rank is None
            else self.q_lora_rank * (h + 1 + heads * self.qk_head_dim)
        )
        attention = (
            query
            + h * self.latent_dim
            + self.kv_lora_rank
            + self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
            + heads * self.v_head_dim * h
        )
        layers, expert = self.num_hidden_layers, 3 * h * self.moe_intermediate_size
        dense_layers = min(self.first_k_dense_replace, layers)
        moe_layers = layers - dense_layers
        return ParameterCount(
            embeddings=self.vocab_size * h,
            head=0 if self.tie_word_embeddings else self.vocab_size * h,
            attention=layers * attention,
            dense_mlp=dense_layers * 3 * h * self.intermediate_size,
            routed_experts=moe_layers * self.n_routed_experts * expert,
            activated_experts=moe_layers * self.num_experts_per_tok * expert,
            shared_experts=moe_layers * self.n_shared_experts * expert,
            router=moe_layers * self.n_routed_experts * h,
            norms=(2 * layers + 1) * h,
        )

    def flops_per_token(self, context: int) -> int:
        """Forward FLOPs for one token that attends to `context` keys, naive attention; training costs three
        times this.

        A multiply-add counts two. The embedding is a look-up and costs nothing; the head is a matmul.
        """
        count = self.count_parameters()
        matmuls = count.activated_with_head - count.norms
        per_key = self.num_hidden_layers * self.num_attention_heads * (self.qk_head_dim + self.v_head_dim)
        return 2 * (matmuls + per_key * context)

    def weight_bytes(self, form: Format) -> dict[str, float]:
        """Bytes of the weights in a format: {"experts": the routed ones, "rest": what every token reads, "table": the
        input embedding, of which a token reads one row}. Together they are the checkpoint."""
        count = self.count_parameters()
        body = count.attention + count.shared_experts + count.dense_mlp
        return {
            "experts": count.routed_experts * form.experts,
            "rest": body * form.rest + 2 * (count.head + count.router + count.norms),
            "table": 2 * count.embeddings,
        }

    def kv_cache_bytes_per_token(self, bytes_per_element: int = 2, kind: str = "mla", groups: int = 8) -> int:
        """Cache of one token over all layers. kind: "mla" the latent; "mha" every head's key and value;
        "gqa" `groups` key-value heads; "mqa" one."""
        head = self.qk_head_dim + self.v_head_dim
        elements = {
            "mla": self.latent_dim,
            "mha": self.num_attention_heads * head,
            "gqa": groups * head,
            "mqa": head,
        }
        if kind not in elements:
            raise ValueError(f"unknown kind of cache {kind!r}; choose one of: {', '.join(elements)}")
        return self.num_hidden_layers * elements[kind] * bytes_per_element


@dataclass(frozen=True)
class ParameterCount:
    """Where the parameters are. `embeddings` is the input table, `head` the output matrix (0 when tied).

    `total` and `activated` take in both; the `_without_embeddings` forms neither, as Moonlight reports;
    `activated_with_head` adds only the head, which every token multiplies by (the input table is a look-up).
    """

    embeddings: int
    head: int
    attention: int
    dense_mlp: int
    routed_experts: int
    activated_experts: int
    shared_experts: int
    router: int
    norms: int

    @property
    def total_without_embeddings(self) -> int:
        return (
            self.attention
            + self.dense_mlp
            + self.routed_experts
            + self.shared_experts
            + self.router
            + self.norms
        )

    @property
    def activated_without_embeddings(self) -> int:
        return self.total_without_embeddings - self.routed_experts + self.activated_experts

    @property
    def total(self) -> int:
        return self.total_without_embeddings + self.embeddings + self.head

    @property
    def activated_with_head(self) -> int:
        return self.activated_without_embeddings + (self.head or self.embeddings)

    @property
    def activated(self) -> int:
        return self.activated_without_embeddings + self.embeddings + self.head
