"""Multi-head latent attention (MLA): all heads read keys and values out of one small latent vector per token.

Two forms of the same function. *Naive*: expand the latent into every head's key and value, then attend as
usual (training, long prompts). *Absorbed*: move the expansion to the query side, attend in latent space
(decoding): only the latent and one rotated key, shared by all heads, are ever cached.

The training form also returns what QK-Clip needs: the exact maximum of each head's scaled logits. Fused
attention kernels never show those numbers, so `causal_attention` is written out, in blocks of rows that skip
the masked half.

Sources: DeepSeek-V3 report section 2.1.1 and inference code `MLA`; Kimi K2 report section 2.1 (QK-Clip).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels.attention import causal_attention, eager_attention, scaled_scores
from kimi_mini.model.kernels.linear import Linear
from kimi_mini.model.norm import RMSNorm
from kimi_mini.model.rope import apply_rope, softmax_scale


class LatentAttention(nn.Module):
    """MLA of one layer. Parameter names are those of the Hugging Face checkpoint.

    `max_logits` (H,) fp32 is the running maximum of each head's scaled logits over training forward passes
    since `reset_max_logits` (None when there was none): the S_h of QK-Clip, over micro-batches.
    """

    def __init__(self, config: KimiConfig):
        super().__init__()
        c, heads = config, config.num_attention_heads
        self.nope, self.rope, self.value = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
        self.heads, self.rank, self.scale = heads, c.kv_lora_rank, softmax_scale(c)
        if c.q_lora_rank is None:
            self.q_proj = Linear(c.hidden_size, heads * c.qk_head_dim)
        else:
            self.q_a_proj = Linear(c.hidden_size, c.q_lora_rank)
            self.q_a_layernorm = RMSNorm(c.q_lora_rank)  # latent norms: eps 1e-6, whatever the config says
            self.q_b_proj = Linear(c.q_lora_rank, heads * c.qk_head_dim)
        self.kv_a_proj_with_mqa = Linear(c.hidden_size, c.latent_dim)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank)
        self.kv_b_proj = Linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
        self.o_proj = Linear(heads * c.v_head_dim, c.hidden_size)
        self.has_q_lora, self.max_logits, self.last_weights = c.q_lora_rank is not None, None, None

    def queries(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, h), rotation (1 or B, T, d_r/2) -> q_nope (B, T, H, d_n), turned q_rope (B, T, H, d_r)."""
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.has_q_lora else self.q_proj(x)
        q_nope, q_rope = q.unflatten(-1, (self.heads, -1)).split([self.nope, self.rope], -1)
        return q_nope, apply_rope(q_rope, rotation[:, :, None])

    def latents(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, h) -> normalised latent (B, T, r) and the rotated key (B, T, d_r) that all heads share."""
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], -1)
        return self.kv_a_layernorm(latent), apply_rope(k_rope, rotation)

    def expand(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """latent (B, S, r), shared key (B, S, d_r) -> all heads' k (B, H, S, d_n + d_r), v (B, H, S, d_v)."""
        k_nope, v = self.kv_b_proj(latent).unflatten(-1, (self.heads, -1)).split([self.nope, self.value], -1)
        k = torch.cat([k_nope, k_rope[:, :, None].expand(-1, -1, self.heads, -1)], -1)
        return k.transpose(1, 2), v.transpose(1, 2)

    def forward(
        self, x: Tensor, rotation: Tensor, valid: Tensor | None = None, cache=None, inspect: bool = False
    ) -> Tensor:
        """x (B, T, h) -> (B, T, h).

        rotation (1 or B, T, d_r/2) complex. valid (B, T): rows that count for max_logits. cache: a view with
        `append(latent) -> all latents so far`, `mask` and `fresh`, from generation.LatentCache. inspect keeps
        the attention weights (B, H, T, T) in `last_weights`.
        """
        q = torch.cat(self.queries(x, rotation), -1).transpose(1, 2)  # (B, H, T, d_n + d_r)
        latent, k_rope = self.latents(x, rotation)
        seen = None if cache is None else cache.append(torch.cat([latent, k_rope], -1))
        if cache is not None and not cache.fresh:
            out = self.attend_cache(q, seen, cache.mask)
        else:
            k, v = self.expand(latent, k_rope)
            if inspect:
                out, self.last_weights = eager_attention(q, k, v, self.scale)
            else:
                out, max_logits = causal_attention(q, k, v, self.scale, valid, track=self.training)
                self.record(max_logits)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def record(self, max_logits: Tensor | None) -> None:
        """Take a new per-head maximum (H,) into the running one."""
        if max_logits is not None:
            before = self.max_logits
            self.max_logits = max_logits if before is None else torch.maximum(before, max_logits)

    # ---- with a cache ----------------------------------------------------------------------------------

    def attend_cache(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """q (B, H, T, d_n + d_r) over cached latents (B, S, r + d_r); the cheaper of the two forms.

        mask (B, 1, T, S) True = may look, None = all. Returns (B, H, T, d_v).
        """
        t, r = q.shape[2], self.rank
        absorbed = t * (2 * r + self.rope)
        naive = t * (self.nope + self.rope + self.value) + r * (self.nope + self.value)
        attend = self.attend_absorbed if absorbed < naive else self.attend_naive
        return attend(q, latents, mask)

    def attend_naive(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Expand every cached latent into keys and values, then attend."""
        k, v = self.expand(*latents.split([self.rank, self.rope], -1))
        mask = mask if mask is not None else torch.ones(1, 1, dtype=torch.bool, device=q.device)
        return eager_attention(q, k, v, self.scale, mask)[0]

    def attend_absorbed(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Fold W_UK into the query and W_UV into the result; scores and context stay in latent space.

        All heads read the same latents, so the heads of a row are rows of one product: nothing is copied per head.
        """
        to_key, to_value = self.kv_b_proj.weight.unflatten(0, (self.heads, -1)).split(
            [self.nope, self.value], 1
        )
        q_nope, q_rope = q.split([self.nope, self.rope], -1)
        q = torch.cat([torch.einsum("bhtn,hnr->bhtr", q_nope, to_key), q_rope], -1)  # (B, H, T, r + d_r)
        scores = scaled_scores(q.flatten(1, 2), latents.transpose(1, 2), self.scale)  # (B, H * T, S)
        if mask is not None:
            scores = scores.unflatten(1, q.shape[1:3]).masked_fill(~mask, float("-inf")).flatten(1, 2)
        context = torch.bmm(scores.softmax(-1).to(latents.dtype), latents[..., : self.rank])  # (B, H * T, r)
        return torch.einsum("bhtr,hvr->bhtv", context.unflatten(1, q.shape[1:3]), to_value)
