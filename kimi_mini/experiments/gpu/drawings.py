"""Figures of the parts, each from its log alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures import style, training
from kimi_mini.experiments.gpu.sheet import Row


def speeds(log: dict) -> Figure:
    """Tokens a second, a bar a row that has some."""
    rows = {row["name"]: row["tokens_per_second"] for row in log["rows"] if "tokens_per_second" in row}
    return style.bars(rows, "tokens/s", log["versions"]["processor"])


def logits(log: dict) -> Figure:
    """The largest attention logit of each step, a panel a size, a line an optimizer; seed 0."""
    return curves(log, ("mini", "midi"), "max_logit", "largest attention logit")


def losses(log: dict) -> Figure:
    """The training loss of both models; seed 0."""
    return curves(log, ("moe", "dense"), "loss", "loss (nats a token)")


def curves(log: dict, panels: tuple[str, ...], key: str, label: str) -> Figure:
    """One list of the runs whose names begin with a panel's name and end with seed 0, against tokens."""
    found: dict[str, dict] = {panel: {} for panel in panels}
    for row in log["rows"]:
        panel, *rest = row["name"].split(", ")
        if panel in found and rest[-1:] == ["seed 0"]:
            found[panel][rest[0]] = (tokens(row), row[key])
    return training.lines(found, "tokens", [label], zero=False)


def tokens(row: Row) -> np.ndarray:
    """Tokens read at each point of a run's curves."""
    points = len(row["loss"])
    return np.arange(1, points + 1) * row["tokens"] / max(points, 1)


def pretraining(log: dict) -> Figure:
    """Loss, largest logit and MaxVio of the ten minutes."""
    row = next(row for row in log["rows"] if row["name"] == "mini")
    return training.training_curves({"pre-training, mini": row["curve"]})


DRAWINGS: dict[str, Callable[[dict], Figure]] = {
    "speed": speeds,
    "generation": speeds,
    "logits": logits,
    "dense": losses,
    "pretraining": pretraining,
}
