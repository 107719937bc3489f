"""What serving a model costs, from its config and a data sheet: memory, cards, tokens a second, money.

A step can be no faster than the slowest of three: reading weights and cache from memory, multiplying, and sending
tokens between cards. Everything else (start of kernels, latency of links, uneven experts, waiting for prompts, drafts
that guess ahead) is left out, so each time is a lower bound; `experiments.deployment.costs` says how far published
deployments stay behind it. GB is 1e9 bytes; times are seconds, prices are dollars.

Source of the two layouts: DeepSeek-V3 report (arXiv 2412.19437) 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from kimi_mini.base.errors import KimiError
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.costs import Format

GB, GIB = 10**9, 2**30
HOURS = 730  # in a month
NODE = 8  # cards in a server


# ------------------------------------------------------------------------------------------------ hardware
@dataclass(frozen=True)
class Card:
    """One accelerator: capacity in GB; bytes and dense FLOPs a second; bytes a second to cards of its node and to other
    nodes, one direction (0: there are none); dollars an hour; where that stands."""

    memory: float
    bandwidth: float
    bf16: float
    fp8: float
    link: float
    network: float
    price: float
    source: str


def bought(price: float, watts: float, years: float = 3.0, electricity: float = 0.15) -> float:
    """Dollars an hour of a machine that is bought for `price` and runs `years`; electricity in dollars a kWh."""
    return price / (years * 12 * HOURS) + watts / 1000 * electricity


RENT = (
    "NVIDIA data sheet; rent: middle of specialised clouds, mercatus-ai.com/blog/cloud-gpu-pricing, May 2026"
)
CARDS = {
    "A100": Card(80, 2.0e12, 312e12, 312e12, 300e9, 25e9, 1.30, f"{RENT}; no fp8"),
    "H100": Card(80, 3.35e12, 989e12, 1979e12, 450e9, 50e9, 3.00, RENT),
    "H200": Card(141, 4.8e12, 989e12, 1979e12, 450e9, 50e9, 4.00, RENT),
    "B200": Card(180, 8.0e12, 2250e12, 4500e12, 900e9, 50e9, 5.25, (
        "NVIDIA data sheet of DGX B200; rent: lyceum.technology, March 2026, the middle of 4.50 to 6.00")),
    "Mac Studio": Card(512, 819e9, 28e12, 28e12, 0, 10e9, bought(9499, 270), (
        "Apple, M3 Ultra; FLOPs: 80 cores x 128 x 2 x 1.4 GHz; price: a parameter, without a source")),
    "EPYC": Card(768, 614e9, 44e12, 44e12, 0, 3e9, bought(12000, 600), (
        "AMD 9755, 12 x DDR5-6400; FLOPs: 128 cores x 128 x 2.7 GHz; price: a parameter, without a source")),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- memory
def memory_per_card(
    config: KimiConfig, form: Format, cards: int, batch: int, context: int, layout: str = "tensor"
) -> float:
    """Bytes on each card, weights and latent cache (bf16).

    layout "tensor"  every matrix is cut; the latent belongs to all heads, so each card holds the whole cache
           "expert"  routed experts and sequences are shared out; the other weights stand on every card
    """
    parts = config.weight_bytes(form)
    cache = batch * context * config.kv_cache_bytes_per_token()
    if _is_tensor(layout):
        return sum(parts.values()) / cards + cache
    return (parts["experts"] + cache) / cards + parts["rest"] + parts["table"]


def largest_batch(
    config: KimiConfig,
    form: Format,
    card: Card,
    cards: int,
    context: int,
    layout: str = "tensor",
    usable: float = 0.9,
) -> int:
    """Sequences of `context` tokens that fit beside the weights, of which the share `usable` of a card's memory is to
    be had; below 0 where not even the weights fit."""
    empty, one = (memory_per_card(config, form, cards, batch, context, layout) for batch in (0, 1))
    return int((usable * card.memory * GB - empty) // (one - empty))


def cards_needed(
    config: KimiConfig,
    form: Format,
    card: Card,
    batch: int = 1,
    context: int = 4096,
    layout: str = "tensor",
    usable: float = 0.9,
) -> int:
    """The fewest cards that hold weights and cache: 1, 2, 4, 8, then whole nodes. Raises KimiError when no number of
    cards would do."""
    for cards in (1, 2, 4, *range(NODE, 1025, NODE)):
        if largest_batch(config, form, card, cards, context, layout, usable) >= batch:
            return cards
    raise KimiError(
        f"{batch} sequences of {context} tokens fit on no number of these cards, layout {layout!r}"
    )


def _is_tensor(layout: str) -> bool:
    if layout not in ("tensor", "expert"):
        raise KimiError(f"unknown layout {layout!r}; choose one of: tensor, expert")
    return layout == "tensor"


# ---------------------------------------------------------------------------------------------------- time
@dataclass(frozen=True)
class Step:
    """Seconds that each resource needs for `tokens` tokens, all cards working; the slowest one decides."""

    tokens: int
    weights: float
    cache: float
    compute: float
    exchange: float

    @property
    def seconds(self) -> float:
        """Memory is one resource: weights and cache are read one after the other."""
        return max(self.weights + self.cache, self.compute, self.exchange)

    @property
    def rate(self) -> float:
        """Tokens a second, of all sequences together."""
        return self.tokens / self.seconds

    @property
    def bound(self) -> str:
        """What decides: "weights", "cache", "compute" or "exchange"."""
        if self.seconds > self.weights + self.cache:
            return "compute" if self.compute >= self.exchange else "exchange"
        return "weights" if self.weights >= self.cache else "cache"


def touched(experts: int, chosen: int, tokens: float) -> float:
    """Expected number of distinct experts that `tokens` tokens choose in one layer, `chosen` of `experts` each.

    Exact where choices are uniform and independent, E (1 - (1 - k/E)^B); uneven routers touch fewer.
    """
    return experts * (1 - (1 - chosen / experts) ** tokens)


def decode(
    config: KimiConfig, form: Format, card: Card, cards: int, batch: int, context: int, layout: str = "tensor"
) -> Step:
    """One token for each of `batch` sequences that have `context` tokens; absorbed attention."""
    cache = batch * context * config.kv_cache_bytes_per_token()
    keys = config.num_hidden_layers * config.num_attention_heads * (config.latent_dim + config.kv_lora_rank)
    products = config.flops_per_token(0) / (card.fp8 if form.fp8 else card.bf16)
    return Step(
        tokens=batch,
        weights=_weights(config, form, card, cards, batch, layout),
        cache=cache / (1 if _is_tensor(layout) else cards) / card.bandwidth,
        compute=batch * (products + 2 * keys * context / card.bf16) / cards,
        exchange=batch * _exchange(config, card, cards, layout, once_a_node=False),
    )


def prefill(
    config: KimiConfig,
    form: Format,
    card: Card,
    cards: int,
    prompt: int,
    batch: int = 1,
    layout: str = "tensor",
) -> Step:
    """`batch` prompts of `prompt` tokens in one pass; naive attention, the head for the last token alone. Its seconds
    are the time to the first token. Raises KimiError where there is no token."""
    if prompt < 1 or batch < 1:
        raise KimiError(f"a prefill needs prompts with tokens, not {batch} of {prompt}")
    tokens, count = prompt * batch, config.count_parameters()
    products = config.flops_per_token(0) - 2 * (count.head or count.embeddings) * (1 - 1 / prompt)
    pairs = (config.flops_per_token(prompt + 1) - config.flops_per_token(0)) / 2  # half a square
    return Step(
        tokens=tokens,
        weights=_weights(config, form, card, cards, tokens, layout),
        cache=0.0,
        compute=tokens * (products / (card.fp8 if form.fp8 else card.bf16) + pairs / card.bf16) / cards,
        exchange=tokens * _exchange(config, card, cards, layout, once_a_node=True),
    )


def _moe_layers(config: KimiConfig) -> int:
    return config.num_hidden_layers - min(config.first_k_dense_replace, config.num_hidden_layers)


def _weights(config: KimiConfig, form: Format, card: Card, cards: int, tokens: int, layout: str) -> float:
    """Seconds to read the weights that `tokens` tokens touch, each once."""
    parts = config.weight_bytes(form)
    seen = touched(config.n_routed_experts, config.num_experts_per_tok, tokens) / config.n_routed_experts
    rest = parts["rest"] / (cards if _is_tensor(layout) else 1)
    return (parts["experts"] * seen / cards + rest) / card.bandwidth


def _exchange(config: KimiConfig, card: Card, cards: int, layout: str, once_a_node: bool) -> float:
    """Seconds of sending one token's share between cards, all of them at it.

    "tensor": two sums over all cards a layer, in bf16, in a ring within the node and one between nodes. "expert": a
    token goes to its experts in fp8 and comes back in bf16; beyond one node only what leaves it counts, for each expert
    or once for each node that holds some.
    """
    nodes, inside, near = ceil(cards / NODE), min(cards, NODE), card.link or card.network
    if _is_tensor(layout):
        ring = 2 * (inside - 1) / inside / near + 2 * (nodes - 1) / nodes / inside / card.network
        return config.num_hidden_layers * 2 * 2 * config.hidden_size * ring
    places, speed = (nodes, card.network) if nodes > 1 else (cards, near)
    chosen = config.num_experts_per_tok
    sent = (touched(places, 1, chosen) if once_a_node else chosen) * (places - 1) / places
    return _moe_layers(config) * sent * 3 * config.hidden_size / speed / cards


# --------------------------------------------------------------------------------------------------- money
@dataclass(frozen=True)
class Api:
    """Dollars for a million tokens: read anew, read from a cache, written."""

    fresh: float
    cached: float
    written: float
    source: str = ""

    def bill(self, read: float, written: float, hits: float = 0.0) -> float:
        """Dollars for tokens read, of which the share `hits` is cached, and tokens written."""
        return (read * ((1 - hits) * self.fresh + hits * self.cached) + written * self.written) / 1e6


APIS = {  # Moonshot's own, as others copied them from platform.moonshot.ai and platform.kimi.ai: 2nd-hand
    "K2 Thinking, November 2025": Api(
        0.60, 0.15, 2.50, "github.com/anomalyco/models.dev/pull/356; since retired"
    ),
    "K2.6, May 2026": Api(0.95, 0.16, 4.00, "github.com/simonw/llm-prices/pull/60; the same sizes as K2"),
}


def price_per_million(rate: float, card: Card, cards: int, use: float = 1.0) -> float:
    """Dollars for a million tokens at `rate` tokens a second; use: the share of the hours that are busy."""
    return cards * card.price / (3600 * rate * use) * 1e6


def break_even(rent: float, api: Api, read: float, written: float, hits: float = 0.0) -> float:
    """Requests a month from which cards for `rent` dollars a month are cheaper than the API, for requests that read
    and write so many tokens. Whether the cards can serve as many is another question."""
    return rent / api.bill(read, written, hits)


@dataclass(frozen=True)
class Mode:
    """One way to answer tasks of one difficulty: success, tokens written, dollars for a million of them."""

    success: float
    tokens: float
    price: float


def hybrid(
    shares: Sequence[float], cheap: Sequence[Mode], dear: Sequence[Mode], sent: Sequence[float]
) -> dict[str, float]:
    """What a router between two modes does. shares: of the tasks in each class of difficulty; sent: of each class, what
    goes to the dear mode. Returns {"success", "cost" in dollars a task, "sent"}. Raises KimiError for no shares."""
    if abs(sum(shares) - 1) > 1e-6 or not all(0 <= share <= 1 for share in (*shares, *sent)):
        raise KimiError("shares of tasks lie between 0 and 1 and add up to 1")
    classes = list(zip(shares, cheap, dear, sent, strict=True))
    parts = [(s * (1 - d), mode) for s, mode, _, d in classes] + [(s * d, mode) for s, _, mode, d in classes]
    return {
        "success": sum(part * mode.success for part, mode in parts),
        "cost": sum(part * mode.tokens * mode.price for part, mode in parts) / 1e6,
        "sent": sum(share * to_dear for share, _, _, to_dear in classes),
    }
