"""Several adapters of one model in one batch: every row has its own.

    served = Adapters(model, {"shop-de": adapter, "notes": another})
    generate(served, ids, 64, rows=["notes", None, "shop-de"])         # None: the model without an adapter
    writer = Writer(served, places, max_length)                        # for whoever serves:
    writer.join(place, Row(context, ..., adapter="notes"))             # a row brings the name of its adapter

`Adapters` takes the place of a model wherever one decodes: Writer, Decoder, generate, LocalPolicy, stops_of. A server
passes the model name of a request as `Row.adapter`, None for the base; `served.names` are those that exist, and a name
that does not is a KimiError when its row joins. A place of the cache that held another adapter's latents is filled
anew; whoever keeps prefixes of his own has to keep them apart by adapter, too.

The base is multiplied once for all rows, and each row adds its own x A^T B^T. In a mixture of experts a token's
matrices depend on its expert and on its adapter: sorted by expert and, within one, by adapter, both are ragged groups
of the same order. Nothing is merged or folded, so a token costs more than with one merged model, and all adapters
together take little more memory than one model.
The weights are read when this is made: make a new one when they have changed.

Sources: Punica (arXiv 2310.18547), S-LoRA (arXiv 2311.03285).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_mini.base.errors import KimiError
from kimi_mini.inference.decoder import Decoder
from kimi_mini.model import kernels
from kimi_mini.model.attention import LatentAttention
from kimi_mini.model.compact.lora import Adapter, places
from kimi_mini.model.compact.peft import EXPERTS
from kimi_mini.model.kernels.attention import wide_bmm
from kimi_mini.model.kernels.experts import grouped_linear, sort_by_expert
from kimi_mini.model.layers import Linear
from kimi_mini.model.moe import Experts

GRAIN = 4  # ranks are filled up to whole 16 bytes, as grouped products want them


class Bank:
    """All adapters' A and B by parameter, the first of them zero; and which of them each row of the batch has."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], adapters: Sequence[Adapter], like: Tensor):
        rank = max((adapter.rank for adapter in adapters), default=1)
        rank += -rank % GRAIN
        self.count, self.which = len(adapters) + 1, torch.zeros(0, dtype=torch.long)
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for name in {name for adapter in adapters for name in adapter.names}:
            *stack, out, into = shapes[name]
            a = torch.zeros(self.count, *stack, rank, into).to(like)
            b = torch.zeros(self.count, *stack, out, rank).to(like)
            for number, adapter in enumerate(adapters, 1):
                if name in adapter.names:
                    a[number, ..., : adapter.rank, :] = adapter[name].a.detach()
                    b[number, ..., : adapter.rank] = adapter[name].b.detach() * adapter.scale
            # of experts: those of one expert side by side, whatever their adapter
            self.pairs[name] = tuple(x.transpose(0, 1).flatten(0, 1) if stack else x for x in (a, b))


class Adapters:
    """A model and its adapters, each with a name. KimiError for an adapter of another model."""

    def __init__(self, model: nn.Module, adapters: Mapping[str, Adapter]):
        for adapter in adapters.values():
            adapter.fitting(model)
        self.names, self.config, self.lm_head = tuple(adapters), model.config, model.lm_head
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.twin = copy.deepcopy(model, shared)  # modules of its own over the same weights
        found = places(self.twin)
        shapes = {name: module._parameters[attribute].shape for name, (module, attribute) in found.items()}
        self.bank = Bank(shapes, list(adapters.values()), model.lm_head.weight)
        for name in self.bank.pairs:
            module, attribute = found[name]
            module.__class__ = BankedExperts if isinstance(module, Experts) else BankedLinear
            module.bank = self.bank
            module.__dict__.setdefault("banked", {})[attribute] = name
        for attention in self.twin.attention_layers():
            if isinstance(attention.kv_b_proj, BankedLinear):
                attention.__class__ = BankedAttention

    def number(self, name: str | None) -> int:
        """Which adapter a name stands for; 0 for none. KimiError for one that is not here."""
        if name is not None and name not in self.names:
            raise KimiError(f"no adapter is called {name!r:.60}: there are {', '.join(self.names) or 'none'}")
        return 0 if name is None else self.names.index(name) + 1

    @contextmanager
    def rows(self, which: Tensor) -> Iterator[None]:
        """Context: row i of a batch has adapter which[i], (N,) long."""
        self.bank.which = which
        try:
            yield
        finally:
            self.bank.which = which[:0]


class AdaptedDecoder(Decoder):
    """A Decoder whose rows each have an adapter, none at first."""

    folds = False

    def __init__(self, adapters: Adapters, rows: int, max_length: int):
        super().__init__(adapters.twin, rows, max_length)
        self.adapters, self.which = (
            adapters,
            torch.zeros(rows, dtype=torch.long, device=self.cache.store.device),
        )

    def wear(self, place: int, name: str | None) -> None:
        """From now on a row computes with this adapter; what the cache holds of it was made by another."""
        self.which[place] = self.adapters.number(name)

    def worn(self, place: int) -> int:
        return int(self.which[place])

    def select(self, rows) -> None:
        super().select(rows)
        self.which = self.which[torch.as_tensor(rows, device=self.which.device)]

    def _chunk(self, tokens: list[list[int]], counts: list[int]) -> Tensor:
        fed = [row for row, count in enumerate(counts) if count]
        with self.adapters.rows(self.which[fed]):
            return super()._chunk(tokens, counts)


class BankedLinear(Linear):
    """x (N, T, in) -> x W^T + x A^T B^T, with A and B of each row."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = (matrix[self.bank.which] for matrix in self.bank.pairs[self.banked["weight"]])
        return kernels.linear(x, self.weight) + x @ a.mT @ b.mT


class BankedAttention(LatentAttention):
    """Absorbed attention with the keys and values of each row's own W_UK and W_UV."""

    def attend_absorbed(self, q: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """As LatentAttention's; kv_b_proj is (N, H * (d_n + d_v), r) here."""
        bank, name = self.kv_b_proj.bank, self.kv_b_proj.banked["weight"]
        a, b = (matrix[bank.which] for matrix in bank.pairs[name])
        expanding = (self.kv_b_proj.weight + b @ a).unflatten(1, (self.heads, -1))  # (N, H, d_n + d_v, r)
        to_key, to_value = expanding.split([self.d_nope, self.d_value], 2)
        q_nope, q_rope = q.split([self.d_nope, self.d_rope], -1)
        q = torch.cat([q_nope @ to_key, q_rope], -1)  # (N, H, T, r + d_r)
        scores = wide_bmm(q.flatten(1, 2), latents.transpose(1, 2), self.scale)  # (N, H * T, S)
        if mask is not None:
            scores = scores.unflatten(1, q.shape[1:3]).masked_fill(~mask, float("-inf")).flatten(1, 2)
        context = torch.bmm(scores.softmax(-1).to(latents.dtype), latents[..., : self.rank])
        return context.unflatten(1, q.shape[1:3]) @ to_value.mT


class BankedExperts(Experts):
    """Every token through its experts, each with the A and B of the token's row."""

    def forward(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        """x (N * T, h), indices and weights (N * T, k) -> (N * T, h)."""
        bank = self.bank
        which = bank.which.repeat_interleave(len(x) // len(bank.which))  # (N * T,)
        groups = len(self.gate_proj) * bank.count
        token, order, ends = sort_by_expert(indices * bank.count + which[:, None], groups)
        each = ends[bank.count - 1 :: bank.count].contiguous()  # where each expert's rows end

        shared = dict(zip(EXPERTS, self.matrices()))

        def product(rows: Tensor, name: str) -> Tensor:
            whole = grouped_linear(rows, shared[name], each)
            if name not in self.banked:
                return whole
            a, b = bank.pairs[self.banked[name]]
            return whole + grouped_linear(grouped_linear(rows, a, ends), b, ends)

        rows = x.index_select(0, token)  # (N * T * k, h), by expert and by adapter
        out = product(F.silu(product(rows, "gate_proj")) * product(rows, "up_proj"), "down_proj")
        return (out[order] * weights[..., None].to(out)).sum(1)
