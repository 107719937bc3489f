"""Multi-head latent attention (MLA): all heads read keys and values out of one small latent vector per token.

Two forms of the same function. *Naive*: expand the latent into every head's key and value, then attend as
usual (training, long prompts). *Absorbed*: move the expansion to the query side, attend in latent space
(decoding): only the latent and one rotated key, shared by all heads, are ever cached.

The training form also returns what QK-Clip needs: the exact maximum of each head's scaled logits.

Sources: DeepSeek-V3 report section 2.1.1 and inference code `MLA`; Kimi K2 report section 2.1 (QK-Clip).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kimi_mini.model import kernels
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.kernels.attention import wide_bmm
from kimi_mini.model.kernels.reference import attention_logits
from kimi_mini.model.layers import Linear, RMSNorm
from kimi_mini.model.rope import apply_rope, softmax_scale
from kimi_mini.model.statistics import Tally


class LatentAttention(nn.Module):
    """MLA of one layer. Parameter names are those of the Hugging Face checkpoint."""

    def __init__(self, config: KimiConfig):
        super().__init__()
        c, heads = config, config.num_attention_heads
        self.d_nope, self.d_rope, self.d_value = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
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
        self.has_q_lora = c.q_lora_rank is not None

    def queries(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, h), rotation (1 or B, T, d_r/2) -> q_nope (B, T, H, d_n), turned q_rope (B, T, H, d_r)."""
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.has_q_lora else self.q_proj(x)
        q_nope, q_rope = q.unflatten(-1, (self.heads, -1)).split([self.d_nope, self.d_rope], -1)
        return q_nope, apply_rope(q_rope, rotation[:, :, None])

    def latents(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, h) -> normalised latent (B, T, r) and the rotated key (B, T, d_r) that all heads share."""
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.d_rope], -1)
        return self.kv_a_layernorm(latent), apply_rope(k_rope, rotation)

    def expand(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """latent (B, S, r), shared key (B, S, d_r) -> all heads' k (B, H, S, d_n + d_r), v (B, H, S, d_v)."""
        k_nope, v = (
            self.kv_b_proj(latent).unflatten(-1, (self.heads, -1)).split([self.d_nope, self.d_value], -1)
        )
        k = torch.cat([k_nope, k_rope[:, :, None].expand(-1, -1, self.heads, -1)], -1)
        return k.transpose(1, 2), v.transpose(1, 2)

    def forward(
        self, x: Tensor, rotation: Tensor, valid: Tensor | None = None, cache=None, tally: Tally | None = None
    ) -> Tensor:
        """x (B, T, h) -> (B, T, h).

        rotation (1 or B, T, d_r/2) complex. valid (B, T): rows that count for the largest logits, which go to
        `tally` if there is one. cache: a view with `append(latent) -> all latents so far`, `mask` and `fresh`: a
        layer of inference.cache.Chunk.
        """
        q = torch.cat(self.queries(x, rotation), -1).transpose(1, 2)  # (B, H, T, d_n + d_r)
        latent, k_rope = self.latents(x, rotation)
        seen = None if cache is None else cache.append(torch.cat([latent, k_rope], -1))
        if cache is not None and not cache.fresh:
            out = self.attend_cache(q, seen, cache.mask)
        else:
            k, v = self.expand(latent, k_rope)
            out, max_logits = kernels.causal_attention(q, k, v, self.scale, valid, track=tally is not None)
            if max_logits is not None:
                tally.see(max_logits)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def logits(self, x: Tensor, rotation: Tensor, looking: Tensor | None = None) -> Tensor:
        """Every scaled logit, to look at: (B, H, P, T) fp32, -inf where a key comes after its query.

        x (B, T, h) and rotation (1 or B, T, d_r/2) as in `forward`; looking (P,) indices of the queries, None: all T.
        """
        keys = torch.arange(x.shape[1], device=x.device)
        at = keys if looking is None else looking
        q = torch.cat(self.queries(x[:, at], rotation[:, at]), -1).transpose(1, 2)  # (B, H, P, d_n + d_r)
        k, _ = self.expand(*self.latents(x, rotation))  # (B, H, T, d_n + d_r)
        return attention_logits(q, k, self.scale, keys > at[:, None])

    # ---- with a cache ----------------------------------------------------------------------------------

    def attend_cache(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """q (B, H, T, d_n + d_r) over cached latents (B, S, r + d_r); the cheaper of the two forms.

        mask (B, 1, T, S) True = may look, None = all. Returns (B, H, T, d_v).
        """
        t, r = q.shape[2], self.rank
        absorbed = t * (2 * r + self.d_rope)
        naive = t * (self.d_nope + self.d_rope + self.d_value) + r * (self.d_nope + self.d_value)
        attend = self.attend_absorbed if absorbed < naive else self.attend_naive
        return attend(q, latents, mask)

    def attend_naive(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Expand every cached latent into keys and values, then attend."""
        k, v = self.expand(*latents.split([self.rank, self.d_rope], -1))
        scores = attention_logits(q, k, self.scale, None if mask is None else ~mask)
        return scores.softmax(-1).to(v.dtype) @ v

    def attend_absorbed(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Fold W_UK into the query and W_UV into the result; scores and context stay in latent space.

        All heads read the same latents, so the heads of a row are rows of one product: nothing is copied per head.
        """
        to_key, to_value = self.kv_b_proj.weight.unflatten(0, (self.heads, -1)).split(
            [self.d_nope, self.d_value], 1
        )
        q_nope, q_rope = q.split([self.d_nope, self.d_rope], -1)
        q = torch.cat([torch.einsum("bhtn,hnr->bhtr", q_nope, to_key), q_rope], -1)  # (B, H, T, r + d_r)
        scores = wide_bmm(q.flatten(1, 2), latents.transpose(1, 2), self.scale)  # (B, H * T, S)
        if mask is not None:
            scores = scores.unflatten(1, q.shape[1:3]).masked_fill(~mask, float("-inf")).flatten(1, 2)
        context = torch.bmm(scores.softmax(-1).to(latents.dtype), latents[..., : self.rank])  # (B, H * T, r)
        return torch.einsum("bhtr,hvr->bhtv", context.unflatten(1, q.shape[1:3]), to_value)
