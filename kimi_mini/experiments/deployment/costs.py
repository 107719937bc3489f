"""The real K2 by its config and a data sheet, against what others published; then money.

Nothing is timed here. Each row says what `inference.serving.roofline` computes for a published deployment, what was
published, where, and why the two differ. A roofline is a bound, so a ratio of 1 would be a deployment without any loss.
Behind it: from how many requests own cards are cheaper than the API, and what a router between reflex and thinking
saves, on the rows that we measured (data/results/modes.json).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.base.files import read_json
from kimi_mini.base.paths import RESULTS
from kimi_mini.course.figures.deployment import costs as figures
from kimi_mini.experiments.harness import arguments, finish
from kimi_mini.inference.serving.roofline import (
    APIS,
    CARDS,
    GB,
    GIB,
    HOURS,
    Card,
    Mode,
    break_even,
    cards_needed,
    decode,
    hybrid,
    prefill,
    price_per_million,
)
from kimi_mini.model.config import KimiConfig
from kimi_mini.model.costs import FORMATS, Format

K2, V3 = KimiConfig.preset("k2"), KimiConfig.preset("deepseek_v3")
INT4, FP8 = FORMATS["int4"], FORMATS["fp8"]
H100, H200, B200, MAC = (CARDS[name] for name in ("H100", "H200", "B200", "Mac Studio"))
PLACE = {"notebook": "10_deployment.ipynb", "figure": "figures/costs.png"}

LMSYS = "lmsys.org/blog/2025-07-20-k2-large-scale-ep"
LMSYS_V3 = "lmsys.org/blog/2025-05-05-large-scale-ep"
VLLM = "github.com/vllm-project/recipes, moonshotai/Kimi-K2-Think.md"
INFERENCEX = "SemiAnalysis InferenceX, quoted by kimi-capacity-report.pages.dev (2nd-hand)"
KT = "github.com/kvcache-ai/ktransformers, doc/en/Kimi-K2.md"
MLX = "hub, spicyneuron/Kimi-K2.6-MLX-3.3bit"
HUB = "the hub's folder, quoted by banandre.com, November 2025 (2nd-hand)"
GUIDE = "github.com/MoonshotAI/Kimi-K2, docs/deploy_guidance.md"


class Published(NamedTuple):
    """A published number beside ours; says: why they differ."""

    name: str
    kind: str
    unit: str
    computed: float
    published: float
    source: str
    says: str


# ---------------------------------------------------------------------------------------------- published
def sizes() -> list[Published]:
    """Memory: exact up to what files hold beside weights."""
    guide, cards = "K2 Thinking's docs/deploy_guidance.md", "cards"
    return [
        Published("K2 Thinking, INT4", "memory", "GB", sum(K2.weight_bytes(INT4).values()) / GB, 594, HUB, "rounding"),
        Published("K2, fp8", "memory", "GB", sum(K2.weight_bytes(FP8).values()) / GB, 1030, HUB, "rounding"),
        Published(
            "tokens of cache in 46.80 GiB", "memory", "tokens", 46.80 * GIB / K2.kv_cache_bytes_per_token(), 715_072,
            VLLM, "rounding: a latent of 576 numbers a layer, whole on each card",
        ),
        Published(
            "fp8, 128k context, H200", "memory", cards, cards_needed(K2, FP8, H200, context=131_072), 16, GUIDE,
            "none: 9 would hold it, whole nodes are 16",
        ),
        Published(
            "INT4, 256k context, H200", "memory", cards, cards_needed(K2, INT4, H200, context=262_144), 8, guide,
            "none: 5 would hold it",
        ),
        Published(
            "NVFP4, B200", "memory", cards, cards_needed(K2, INT4, B200), 4, "docs.nvidia.com/dynamo, Kimi-K2.6 recipe",
            "none; NVFP4 has a scale for 16 numbers, and of one byte",
        ),
    ]  # fmt: skip


def speeds() -> list[Published]:
    """Tokens a second of whole deployments; of each sequence, on a node that cuts every matrix."""
    net = "the network decides; likely uneven experts, and an exchange that is not all hidden"
    wait = "likely the wait at 122 sums over cards, the start of kernels, prompts in between"

    def spread(config: KimiConfig, card: Card, cards: int, each: int, context: int) -> float:
        return decode(config, FP8, card, cards, cards * each, context, "expert").rate

    def prompts(config: KimiConfig, card: Card, length: int, each: int) -> float:
        return prefill(config, FP8, card, 32, length, 32 * each, "expert").rate

    peers = (
        ("H200", 4, 91.2),
        ("H200", 16, 46.6),
        ("H200", 64, 16.7),
        ("B200", 4, 104.4),
        ("B200", 64, 26.0),
    )
    mlx, experts = Format(3.331 / 8, 3.331 / 8), K2.count_parameters().activated_experts * INT4.experts
    rows = [
        ("K2, 96 x H200, 480 a card", "decode", spread(K2, H200, 96, 480, 2050), 288_000, LMSYS,
         f"{net}; 96 experts stand twice"),
        ("V3, 72 x H100, 256 a card", "decode", spread(V3, H100, 72, 256, 2050), 9 * 22_282, LMSYS_V3, net),
        ("V3, 128 x H800, 128 a card", "decode", spread(V3, H100, 128, 128, 4096), 16 * 18_598,
         f"DeepSeek's profile, in {LMSYS_V3}", "tokens go to four nodes at most; an H800 counts as an H100"),
        *((f"K2.5, 8 x {name}, {batch} at once", "decode", decode(K2, INT4, CARDS[name], 8, batch, 8704).rate / batch,
           found, INFERENCEX, wait) for name, batch, found in peers),
        ("K2.6, Mac Studio, 3.3 bits", "decode", decode(K2, mlx, MAC, 1, 1, 1280).rate, 21.4, MLX,
         "not known; products with one row seldom reach the bandwidth"),
        ("K2, one socket, 4.5 bits", "decode", 307.2e9 / experts, 10, KT,
         "experts alone, at 8 channels of DDR5-4800 (their usual bench; the page names no socket)"),
        ("K2, 32 x H200, prompts of 2,000", "prefill", prompts(K2, H200, 2000, 8), 224_000, LMSYS, net),
        ("V3, 32 x H100, prompts of 4,096", "prefill", prompts(V3, H100, 4096, 4), 4 * 50_302, LMSYS_V3, net),
        ("K2 Thinking, 8 x H200, prompts of 8,000", "prefill", prefill(K2, INT4, H200, 8, 8000, 4).rate, 10_463, VLLM,
         "their number holds decoding too (5% of the tokens); INT4 is unpacked to bf16 on the way"),
    ]  # fmt: skip
    return [Published(name, kind, "tokens/s", *rest) for name, kind, *rest in rows]


def money() -> list[Published]:
    """A price that others computed from their own speed."""
    rent = H200.price / 2.3  # they rent for 2.3 dollars
    says = "rounding: the same division"
    found = price_per_million(24_000, H200, 8) / rent
    return [Published("K2, a million tokens written", "money", "dollars", found, 0.21, LMSYS, says)]


# -------------------------------------------------------------------------------------------------- choices
READ, WRITTEN = 8192, 1024  # tokens of a request
NODE_TOKENS = {"prefill": 56_000, "decode": 24_000}  # a node of LMSYS' K2


def own_or_api(log: Log) -> None:
    """Rows: rent, requests a month that can be served, and from which on own cards are cheaper than the API.

    One node as measured, prompts and all; 16 nodes at LMSYS' speeds, shared out as these requests need them, with none
    or most of each prompt found in a cache.
    """

    def seconds(hits: float) -> float:
        return READ * (1 - hits) / NODE_TOKENS["prefill"] + WRITTEN / NODE_TOKENS["decode"]

    found = [("8 x H200, INT4", 8, 0.0, 64 * 16.7 / WRITTEN, INFERENCEX)]
    found += [("128 x H200, fp8", 128, hits, 16 / seconds(hits), LMSYS) for hits in (0.0, 0.8)]
    for name, cards, hits, rate, source in found:
        rent, most = cards * H200.price * HOURS, rate * 3600 * HOURS
        own = {"name": name, "hits": hits, "rent": rent, "can_serve": most, "own_price": rent / most}
        for api, prices in APIS.items():
            least, bill = break_even(rent, prices, READ, WRITTEN, hits), prices.bill(READ, WRITTEN, hits)
            rest = {"api": api, "api_price": bill, "cheaper_from": least, "share": least / most}
            log.row(part="own or api", **own, **rest, source=f"{source}; {prices.source}")


PRICES = {"reflex": 1.0, "thinking": 4.0}  # a million tokens of the small and of the large model: a parameter
ERRORS = (0.0, 0.1, 0.3, 0.5)  # a router's share of wrong turns; a half is no router


def classes() -> tuple[list[Mode], list[Mode]]:
    """Reflex and thinking in every family and level of modes.json, classes where thinking helps most for its price
    first. Both are the same weights there; the prices make the second one a larger model."""
    rows = read_json(RESULTS / "modes.json")["rows"]
    pairs = []
    for key in dict.fromkeys((row["family"], row["level"]) for row in rows):
        modes = []
        for mode, price in PRICES.items():
            own = [row for row in rows if (row["family"], row["level"], row["mode"]) == (*key, mode)]
            passed, written, count = (sum(row[name] for row in own) for name in ("passed", "written", "n"))
            modes.append(Mode(passed / count, written / count, price))
        pairs.append(modes)

    def worth(pair: list[Mode]) -> float:
        return (pair[1].success - pair[0].success) / (pair[1].tokens * pair[1].price)

    pairs.sort(key=worth, reverse=True)
    return [cheap for cheap, _ in pairs], [dear for _, dear in pairs]


def routes(cheap: Sequence[Mode], dear: Sequence[Mode], error: float) -> list[dict[str, float]]:
    """From all reflex to all thinking, a class at a time, the most useful first; a router with `error` sends that share
    of each class the other way."""
    count = len(cheap)
    shares = [1 / count] * count
    sent = ([1 - error] * first + [error] * (count - first) for first in range(count + 1))
    return [hybrid(shares, cheap, dear, part) for part in sent]


# -------------------------------------------------------------------------------------------------- report
def main() -> None:
    """Write data/results/costs.json and its figures."""
    args = arguments(__doc__.splitlines()[0], seeds=(0,))
    log = Log("costs", seeds=args.seeds, folder=args.folder)
    for row in (*sizes(), *speeds(), *money()):
        log.row(part="published", **row._asdict(), ratio=row.computed / row.published)
        print(f"{row.name:42} {row.computed:12,.4g} / {row.published:12,.4g} {row.unit:14}", end=" ")
        print(f"{row.computed / row.published:6.3g}", flush=True)
    for batch in (1, 8, 64, 512):
        times = {name: decode(K2, form, H200, 16, batch, 0).weights for name, form in FORMATS.items()}
        log.row(part="formats", batch=batch, **times)
    own_or_api(log)
    cheap, dear = classes()
    for error in ERRORS:
        for sent, found in enumerate(routes(cheap, dear, error)):
            log.row(part="routing", error=error, classes=sent, **found)
    report(log)
    finish(log, costs=draw, costs_routing=draw_routing)


def report(log: Log) -> None:
    """The claims. They are computed, not sampled, and have no intervals."""
    parts = {row["part"]: [r for r in log.rows if r["part"] == row["part"]] for row in log.rows}
    ratio = {row["name"]: row["ratio"] for row in parts["published"]}
    kinds = {row["name"]: row["kind"] for row in parts["published"]}

    def claim(name: str, says: str, source: str, value: float, floor: float, **more) -> None:
        log.claim(f"costs/{name}", claim=says, source=source, value=value, floor=floor, **PLACE | more)

    def worst(chosen: Callable[[str], bool]) -> float:
        return max(value for name, value in ratio.items() if chosen(name))

    off = max(abs(value - 1) for name, value in ratio.items() if kinds[name] == "memory")
    says = "K2's checkpoints, cache and smallest deployments follow from the config: the largest error"
    claim("memory", says, "Moonshot, vLLM, NVIDIA", off, 0.01, at_most=True)
    timed = [value for name, value in ratio.items() if kinds[name] in ("decode", "prefill")]
    says = "no published deployment is faster than its roofline: the smallest computed / published"
    claim("bound", says, "this project", min(timed), 1.0)
    says = "hundreds of sequences a card over many nodes come within 3 times of the roofline: the farthest"
    found = worst(lambda name: "x H" in name and " 8 x" not in name)
    claim("large", says, "LMSYS, DeepSeek", found, 3.0, at_most=True)
    says = "a node that cuts every matrix comes within 3 times of it with 4 sequences: the farthest"
    claim("small", says, INFERENCEX, worst(lambda n: n.endswith(" 4 at once")), 3.0, at_most=True)
    says = "a node that cuts every matrix comes within 3 times of the roofline with prompts of 8,000: the largest gap"
    says += " of all (a row added when the log had been seen)"
    claim("prompts", says, VLLM, worst(lambda n: n.endswith("prompts of 8,000")), 3.0, at_most=True)
    first, *_, many = parts["formats"]
    card = "K2 Thinking's card: INT4 is twice as fast (as what, it does not say)"
    says = "INT4 halves the bytes of a step against bf16, at one sequence"
    claim("int4_bf16", says, card, first["bf16"] / first["int4"], 1.9)
    says = "INT4 halves the bytes of a step against fp8, at one sequence (attention goes from 8 bits to 16)"
    claim("int4_fp8", says, card, first["fp8"] / first["int4"], 1.9)
    says = "INT4 halves the bytes of a step against fp8, at 512 sequences, when every expert is read"
    claim("int4_fp8_many", says, card, many["fp8"] / many["int4"], 1.9)
    names = ("own_node_2025", "own_node_2026", "own_cluster_2025", "own_cluster_2026")
    for name, row in zip(names, (row for row in parts["own or api"] if row["hits"] == 0), strict=True):
        says = f"{row['name']} for rent cost less than the API ({row['api']}) before they are full: share of what"
        says += f" they can serve, {READ:,} tokens in and {WRITTEN:,} out"
        claim(name, says, row["source"], row["share"], 1.0, at_most=True)
    perfect = [row for row in parts["routing"] if row["error"] == 0]
    best = perfect[-1]["success"] - 0.01
    cost = min(row["cost"] for row in perfect if row["success"] >= best) / perfect[-1]["cost"]
    says = "a router that knows each class keeps thinking's success (within a point): share of its cost"
    place = {"at_most": True, "figure": "figures/costs_routing.png"}
    claim("routing", says, "article (hybrid strategies)", cost, 0.7, **place)


def draw(log: dict) -> Figure:
    """Computed against published."""
    rows = [row for row in log["rows"] if row["part"] == "published"]
    return figures.published(rows, "K2 and DeepSeek-V3: what the data sheet allows, over what was published")


def draw_routing(log: dict) -> Figure:
    """Success against cost, a line a router."""
    rows = [row for row in log["rows"] if row["part"] == "routing"]
    most = max(row["cost"] for row in rows if row["error"] == 0)
    names = {0.0: "knows each class", 0.5: "tosses a coin"}
    curves = {
        names.get(error, f"errs in {error:.0%}"): [
            (row["cost"] / most, row["success"]) for row in rows if row["error"] == error
        ]
        for error in ERRORS
    }
    says = f"reflex or thinking at {PRICES['thinking'] / PRICES['reflex']:.0f} times the price a token"
    return figures.routing(curves, f"{len({row['classes'] for row in rows}) - 1} classes of tasks: {says}")


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
