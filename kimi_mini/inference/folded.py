"""One token at a time, fast: the matrices of a small model multiplied together ahead of time.

Decoding a tiny model costs more in calls than in arithmetic. Absorbed attention says that W_UK can move to
the query and W_UV to the output; here both are really multiplied into their neighbours, so that one matrix
turns a token into every head's latent query and the latent to cache, and one turns all latent contexts into
the layer's output. Norm weights and the softmax scale go into the matrices as well. All routed experts of a
layer and the shared one lie side by side as one wide MLP whose unchosen parts are multiplied by zero: more
arithmetic, two calls.

A `FoldedModel` is a snapshot: make a new one when the weights have changed. fp32 only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_mini.inference.cache import DecodeStep

FOLD_LIMIT = 2**21  # numbers in one folded matrix; larger ones cost more memory traffic than they save
DENSE_LIMIT = 25_000_000  # multiply-adds of all experts on all rows; beyond, sorting by expert is faster


def foldable(model) -> bool:
    """Whether folding pays: fp32 weights and small folded matrices."""
    c = model.config
    query = c.num_attention_heads * c.latent_dim * (c.q_lora_rank or c.hidden_size)
    output = c.num_attention_heads * c.kv_lora_rank * c.hidden_size
    return model.lm_head.weight.dtype == torch.float32 and max(query, output) <= FOLD_LIMIT


def rms_normalise(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without its weight: x (..., D) / sqrt(mean(x^2) + eps)."""
    squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return x * squares.mul_(1 / x.shape[-1]).add_(eps).rsqrt_()


class FoldedAttention:
    """x -> x + attention(norm(x)) for one token a row, over a latent cache."""

    def __init__(self, layer):
        a, norm = layer.self_attn, layer.input_layernorm
        self.eps, self.heads, self.rank, self.q_rank = norm.eps, a.heads, a.rank, None
        to_key, to_value = a.kv_b_proj.weight.unflatten(0, (a.heads, -1)).split([a.d_nope, a.d_value], 1)
        query = a.q_b_proj.weight * a.q_a_layernorm.weight if a.has_q_lora else a.q_proj.weight * norm.weight
        nope, rope = query.unflatten(0, (a.heads, -1)).split([a.d_nope, a.d_rope], 1)  # (H, d_n or d_r, in)
        absorbed = torch.cat([to_key.transpose(1, 2) @ nope, rope], 1) * a.scale  # (H, r + d_r, in)
        latent = a.kv_a_proj_with_mqa.weight * norm.weight  # (r + d_r, h)
        if a.has_q_lora:
            self.q_rank = len(a.q_a_proj.weight)
            self.w_in = torch.cat([a.q_a_proj.weight * norm.weight, latent]).T.contiguous()
            self.w_query = absorbed.flatten(0, 1).T.contiguous()  # (q_rank, H * (r + d_r))
        else:
            self.w_in = torch.cat([absorbed.flatten(0, 1), latent]).T.contiguous()  # (h, (H + 1) * (r + d_r))
        self.latent_norm = a.kv_a_layernorm.weight
        output = a.o_proj.weight.unflatten(1, (a.heads, -1)).transpose(0, 1) @ to_value  # (H, h, r)
        self.w_out = output.transpose(1, 2).flatten(0, 1).contiguous()  # (H * r, h)

    def __call__(self, x: Tensor, rotation: Tensor, store: Tensor, step: DecodeStep) -> Tensor:
        """x (N, h), rotation (N, 1, d_r/2) complex, store (rows, slots, r + d_r): this layer's cache."""
        y = rms_normalise(x, self.eps) @ self.w_in
        if self.q_rank is not None:
            y = torch.cat([rms_normalise(y[:, : self.q_rank], 1e-6) @ self.w_query, y[:, self.q_rank :]], 1)
        y = y.view(len(x), self.heads + 1, -1)  # (N, H + 1, r + d_r): queries, then the latent
        torch.view_as_complex(y[..., self.rank :].unflatten(-1, (-1, 2))).mul_(rotation)
        latent = y[:, -1, : self.rank]
        latent.copy_(rms_normalise(latent, 1e-6).mul_(self.latent_norm))
        store[step.rows, step.slots] = y[:, -1]
        context = (self.each_row if step.bias is None else self.all_rows)(y[:, :-1], store, step)
        return torch.addmm(x, context.view(len(x), -1), self.w_out)

    def all_rows(self, queries: Tensor, store: Tensor, step: DecodeStep) -> Tensor:
        """queries (N, H, r + d_r) -> contexts (N, H, r), in two products of rows as long as the longest."""
        seen = step.look(store)  # (N, S, r + d_r)
        bias = step.bias.expand(-1, self.heads, -1)
        weights = torch.baddbmm(bias, queries, seen.transpose(1, 2)).softmax(-1)  # (N, H, S)
        return torch.bmm(weights, seen[..., : self.rank])

    def each_row(self, queries: Tensor, store: Tensor, step: DecodeStep) -> Tensor:
        """The same for any number of tokens a row, row by row and each as long as it is: nothing is padded, and no
        latent is copied."""
        context = store.new_empty(len(queries), self.heads, self.rank)
        for row, first, count, length in step.spans:
            seen, own = store[row, :length], slice(first, first + count)  # (S_i, r + d_r)
            scores = queries[own].flatten(0, 1) @ seen.T  # (n * H, S_i)
            if count > 1:  # what comes later is not seen
                late = torch.ones(count, count, dtype=torch.bool, device=seen.device).triu(1)[:, None]
                scores.view(count, self.heads, -1)[..., -count:].masked_fill_(late, float("-inf"))
            torch.mm(scores.softmax(-1), seen[:, : self.rank], out=context[own].view(-1, self.rank))
        return context


class FoldedMLP:
    """x -> x + mlp(norm(x)) of a dense layer."""

    def __init__(self, layer):
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        self.eps, self.width = norm.eps, len(mlp.gate_proj.weight)
        self.w_in = (torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * norm.weight).T.contiguous()
        self.w_out = mlp.down_proj.weight.T.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        y = rms_normalise(x, self.eps) @ self.w_in
        return torch.addmm(x, F.silu(y[:, : self.width]).mul_(y[:, self.width :]), self.w_out)


class SortedMoE:
    """x -> x + moe(norm(x)) by the layer itself, which sorts rows by expert: for many rows or large experts."""

    def __init__(self, layer):
        self.norm, self.moe = layer.post_attention_layernorm, layer.mlp

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.moe(self.norm(x)[None])[0]


class FoldedMoE:
    """x -> x + moe(norm(x)): router, routed and shared experts as two matrices."""

    def __init__(self, layer):
        norm, moe = layer.post_attention_layernorm, layer.mlp
        self.experts, self.width, h = moe.experts.gate_proj.shape
        self.blocks, self.eps, self.router = blocks_of(moe), norm.eps, moe.gate
        self.sorted, self.most_rows = SortedMoE(layer), DENSE_LIMIT // (3 * self.blocks * self.width * h)
        gate, up, down = ([matrix] for matrix in moe.experts.matrices())
        shared = self.blocks - self.experts
        if shared:
            size = (shared, self.width)
            gate.append(moe.shared_experts.gate_proj.weight.unflatten(0, size))
            up.append(moe.shared_experts.up_proj.weight.unflatten(0, size))
            down.append(moe.shared_experts.down_proj.weight.unflatten(1, size).transpose(0, 1))
        columns = [moe.gate.weight, torch.cat(gate).flatten(0, 1), torch.cat(up).flatten(0, 1)]
        self.w_in = (torch.cat(columns) * norm.weight).T.contiguous()  # (h, E + 2 * blocks * width)
        self.w_out = torch.cat(down).transpose(1, 2).flatten(0, 1).contiguous()  # (blocks * width, h)
        self.template = torch.zeros(1, self.blocks, device=self.w_in.device)
        self.template[:, self.experts :] = 1.0  # the shared blocks' weight

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > self.most_rows:
            return self.sorted(x)
        y = rms_normalise(x, self.eps) @ self.w_in
        logits, gate, up = y.split([self.experts, self.blocks * self.width, self.blocks * self.width], 1)
        indices, weights = self.router.weigh(logits.sigmoid())
        gates = self.template.expand(len(x), -1).scatter(1, indices, weights)  # (N, blocks)
        hidden = F.silu(gate).mul_(up).view(len(x), self.blocks, self.width).mul_(gates[:, :, None])
        return torch.addmm(x, hidden.flatten(1), self.w_out)


def blocks_of(moe) -> int:
    """Routed experts, and the shared ones counted in their width."""
    width = moe.experts.gate_proj.shape[1]
    shared = 0 if moe.shared_experts is None else len(moe.shared_experts.gate_proj.weight) // width
    return len(moe.experts.gate_proj) + shared


def folded_mlp(layer) -> FoldedMLP | SortedMoE | FoldedMoE:
    """The second half of a layer: folded where that pays."""
    if not layer.routed:
        return FoldedMLP(layer)
    _, width, h = layer.mlp.experts.gate_proj.shape
    return (FoldedMoE if blocks_of(layer.mlp) * width * h <= FOLD_LIMIT else SortedMoE)(layer)


class FoldedModel:
    """All layers and the head, folded. See the module's text."""

    @torch.no_grad()
    def __init__(self, model):
        self.embedding = model.model.embed_tokens.weight.detach()
        self.attention = [FoldedAttention(layer) for layer in model.model.layers]
        self.mlps = [folded_mlp(layer) for layer in model.model.layers]
        self.eps = model.model.norm.eps
        self.head = (model.lm_head.weight * model.model.norm.weight).T.contiguous()  # (h, V)

    @torch.no_grad()
    def __call__(self, ids: Tensor, rotation: Tensor, stores: Tensor, step: DecodeStep) -> Tensor:
        """ids (N,), rotation (N, 1, d_r/2) complex, stores (L, rows, slots, r + d_r) -> logits (N, V)."""
        return self.logits(self.read(ids, rotation, stores, step))

    @torch.no_grad()
    def read(self, ids: Tensor, rotation: Tensor, stores: Tensor, step: DecodeStep) -> Tensor:
        """The same without the head, for tokens behind which nothing is asked: -> hidden states (N, h)."""
        x = F.embedding(ids, self.embedding)
        for index, (attention, mlp) in enumerate(zip(self.attention, self.mlps)):
            x = mlp(attention(x, rotation, stores[index], step))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden states (N, h) -> (N, V)."""
        return rms_normalise(hidden, self.eps) @ self.head
