"""Do experts specialise? Measured twice: what an expert's number says about a token, and what is lost without it.

    information   bits that expert and domain (and kind of token) share, per layer, beside a control in which whole
                  texts get another text's label
    silence       the expert that prefers a domain most is found on one half of the held-out texts; then it is
                  silenced, and the rise of every domain's loss is measured on the other half. Beside it: random ones.

A model of 16 experts per layer, 3 chosen, trained on Python, prose, arithmetic and tool calls in equal parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.base.command import in_one_line
from kimi_mini.base.evidence import Log
from kimi_mini.course.figures import moe, style
from kimi_mini.evaluation.routing import (
    TOKEN_CLASSES,
    damage,
    losses,
    mutual_information,
    permutation_p,
    routes,
    shuffled_information,
    token_class,
    top_expert,
    usage,
)
from kimi_mini.experiments import harness
from kimi_mini.experiments.harness import arguments
from kimi_mini.experiments.moe import shared
from kimi_mini.experiments.moe.domains import DOMAINS
from kimi_mini.text.tokenizer import Tokenizer

TOKENS, STEP = 800_000, shared.ROWS * shared.LENGTH
RANDOM = 4  # experts picked at random, for comparison
SHUFFLES = 999


def main() -> None:
    """Train and measure with every seed; write data/results/specialisation.json and its figure."""
    args = arguments(__doc__.splitlines()[0])
    tokens = int(TOKENS * args.scale)
    log = shared.begin("specialisation", args, tokens=tokens, domains=DOMAINS, token_classes=TOKEN_CLASSES)
    for seed in args.seeds:
        windows, held_out = shared.texts(tokens, seed)
        done = shared.fit(shared.shape(), windows, max(10, tokens // STEP), seed)
        first, second = ({name: ids[half::2] for name, ids in held_out.items()} for half in (0, 1))
        for row in information(done.model, held_out):
            log.row(kind="information", seed=seed, **row)
        for row in silence(done.model, first, second, seed):
            log.row(kind="silence", seed=seed, **row)
        log.row(kind="loss", seed=seed, seconds=done.history.seconds, **losses(done.model, held_out))
        hurt = {
            row["of"]: round(ratio(row), 1)
            for row in of(log.rows, "silence", seed=seed)
            if row["of"] in DOMAINS
        }
        print(f"seed {seed} own rise over that of the others: {hurt}", flush=True)
    report(log)
    harness.finish(log, specialisation=draw)


def labelled(texts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(domain of each token, ids) of all texts together, both (B, T)."""
    ids = np.concatenate(list(texts.values()))
    counts = [len(part) for part in texts.values()]
    return np.repeat(np.arange(len(texts)), counts)[:, None].repeat(ids.shape[1], 1), ids


def information(model, texts: Mapping[str, np.ndarray]) -> list[dict]:
    """Bits shared by expert and label in each layer, with their control."""
    tokenizer = Tokenizer.load()
    domain, ids = labelled(texts)
    kinds = np.array([token_class(tokenizer.decode([token])) for token in range(ids.max() + 1)])[ids]
    rows = []
    for layer, experts in enumerate(routes(model, ids).experts):
        for label, values in (("domain", domain), ("kind of token", kinds)):
            bits = mutual_information(values, experts)
            chance = shuffled_information(values, experts, SHUFFLES)
            floor, p = float(chance.mean()), permutation_p(bits, chance)
            rows.append({"layer": layer, "label": label, "bits": bits, "shuffled": floor, "p": p})
    return rows


def silence(model, first: Mapping, second: Mapping, seed: int) -> list[dict]:
    """Choose experts on `first`, silence them one by one, measure on `second`."""
    experts = model.config.n_routed_experts
    labels, ids = labelled(first)
    # (L, domains, E)
    shares = np.stack([usage(labels, chosen, experts) for chosen in routes(model, ids).experts])
    chosen = [(name, *top_expert(shares, label)) for label, name in enumerate(first)]
    rng = np.random.default_rng(seed)
    chosen += [("random", int(rng.integers(len(shares))), int(rng.integers(experts))) for _ in range(RANDOM)]
    return [
        {
            "of": name,
            "layer": layer,
            "expert": expert,
            "rise": damage(model, second, layer, expert),
            "share": {other: float(shares[layer, i, expert]) for i, other in enumerate(first)},
        }
        for name, layer, expert in chosen
    ]


def ratio(row: Mapping) -> float:
    """Rise of the loss of the expert's own domain over the largest change, up or down, of any other."""
    others = [abs(rise) for name, rise in row["rise"].items() if name != row["of"]]
    return row["rise"][row["of"]] / max(*others, 1e-6)


def above_floor(rows: Sequence[Mapping], label: str, layer: int) -> list[float]:
    """Measured bits less those of shuffled labels, seed by seed."""
    return [row["bits"] - row["shuffled"] for row in of(rows, "information", label=label, layer=layer)]


def of(rows: Sequence[Mapping], kind: str, **values) -> list[Mapping]:
    """Rows of a kind with these values, seed by seed."""
    wanted = {"kind": kind, **values}
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def report(log: Log) -> None:
    """Information in the best layer over its control; for every domain, what its top expert's silence does."""
    common = {"figure": "figures/specialisation.png", "notebook": shared.NOTEBOOK, "source": "this project"}
    layers = sorted({row["layer"] for row in of(log.rows, "information")})
    for label in ("domain", "kind of token"):
        best = max((above_floor(log.rows, label, layer) for layer in layers), key=np.mean)
        worst_p = max(row["p"] for row in of(log.rows, "information", label=label))
        says = f"bits that expert and {label} share, less those of shuffled labels, best layer"
        name = label.split()[0]
        log.claim(f"moe/information_{name}", claim=says, floor=0.0, **harness.across(best), **common)
        says = f"permutation p of the bits that expert and {label} share, worst layer and seed"
        log.claim(f"moe/permutation_{name}", claim=says, floor=0.01, at_most=True, value=worst_p, **common)
    for name in DOMAINS:
        found = of(log.rows, "silence", of=name)
        worst = min(ratio(row) for row in found)  # a ratio to almost nothing has no mean
        least = min(row["rise"][name] for row in found)
        said = f"silencing the top expert of {name} (+{least:.3f} nats and more): its rise over any other's, worst seed"
        log.claim(f"moe/silence_{name.split()[0].lower()}", claim=said, floor=2.0, value=worst, **common)


@style.styled
def draw(log: dict) -> Figure:
    """Information per layer beside its control, and rises of the loss."""
    rows = log["rows"]
    layers = sorted({row["layer"] for row in of(rows, "information")})
    per_layer = {
        label: [of(rows, "information", label=label, layer=layer) for layer in layers]
        for label in ("domain", "kind of token")
    }
    measured, control = {}, {}
    for label, parts in per_layer.items():
        measured[label] = [harness.across([row["bits"] for row in found]) for found in parts]
        control[label] = [float(np.mean([row["shuffled"] for row in found])) for found in parts]
    rises = {
        name: np.mean([[row["rise"][d] for d in log["domains"]] for row in of(rows, "silence", of=name)], 0)
        for name in (*log["domains"], "random")
    }
    return moe.specialisation(measured, control, rises, log["domains"])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
