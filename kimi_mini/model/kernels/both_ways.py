"""Attention of a model that refines a text in place of writing it left to right.

A row is a context and, behind it, a canvas. What stands on the canvas is seen from all of the canvas, before and
behind; the context sees what came before it and never the canvas. So the latents of a context do not depend on what
the canvas holds: they are computed once, and every step of refinement looks at the same cached ones.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kimi_mini.model.kernels.reference import after_query, attention_logits

Attention = Callable[..., tuple[Tensor, Tensor | None]]


def both_ways(canvas: Tensor) -> Attention:
    """The attention kernel for rows whose canvas is marked: canvas (B, T) bool. For `kernels.using(attention=...)`."""

    def attention(
        q: Tensor, k: Tensor, v: Tensor, scale: float, valid: Tensor | None = None, track: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """q, k (B, H, T, Dq), v (B, H, T, Dv), valid (B, T): see `kernels.causal_attention`. Padding stands behind the
        canvas and would be seen from it: its keys are hidden."""
        hidden = after_query(q.shape[2], q) & ~canvas[:, :, None]  # (B, T, T): (query, key)
        if valid is not None:
            hidden = hidden | ~valid[:, None]
        logits = attention_logits(q, k, scale, hidden[:, None])
        out = logits.softmax(-1).to(v.dtype) @ v
        if not track:
            return out, None
        if valid is not None:
            logits = logits.masked_fill(~valid[:, None, :, None], float("-inf"))
        return out, logits.detach().amax((0, 2, 3)).float()

    return attention
