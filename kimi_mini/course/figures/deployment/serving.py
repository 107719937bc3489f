"""The endpoint under load: tokens a second and the wait for the first one by number of clients, memory over minutes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLUE, GREY, ORANGE, RED, figure, styled


@styled
def endpoint_under_load(log: Mapping) -> Figure:
    """Left: speed and wait by clients, a point a round. Right: resident memory of the soak. log: serving.json."""
    fig, axes = figure(14, 4.6, 1, 3)
    speed, wait, memory = axes[0]
    rounds = [row for row in log["rows"] if row["what"] == "round"]
    clients = sorted(map(int, rounds[0]["speeds"]))
    for row in rounds:
        speed.plot(clients, [row["speeds"][str(n)] for n in clients], "o", color=BLUE, alpha=0.4)
    middle = [float(np.median([row["speeds"][str(n)] for row in rounds])) for n in clients]
    speed.plot(clients, middle, color=BLUE, label="measured (median)")
    speed.plot(clients, [middle[0] * n for n in clients], "--", color=GREY, label="as fast as alone")
    speed.axhline(5 * middle[0], color=RED, linestyle=":", label="bar: 5 times one")
    speed.set(ylim=(0, 1.25 * max(*middle, 5 * middle[0])), ylabel="tokens a second", title="All clients")
    for place, colour, label in ((0, BLUE, "median"), (1, ORANGE, "95%")):
        values = [1000 * np.median([row["first"][str(n)][place] for row in rounds]) for n in clients]
        wait.plot(clients, values, "o-", color=colour, label=label)
    wait.set(ylabel="milliseconds", title="To the first token")
    for ax in (speed, wait):
        ax.set_xscale("log", base=2)
        ax.set_xticks(clients, map(str, clients))
        ax.set_xlabel("clients at once")
        ax.legend()
    rest = next(row for row in log["rows"] if row["what"] == "soak")
    seconds, mib = np.array(rest["samples"]).T
    memory.plot(seconds / 60, mib, color=BLUE)
    middle = float(np.median(mib))
    memory.set(ylim=(middle - 50, middle + 50), xlabel="minutes", ylabel="MiB")
    memory.set_title(f"Memory, {rest['requests']:,} requests")
    return fig
