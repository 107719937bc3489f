"""What adapters learn, keep and weigh."""

from __future__ import annotations

from matplotlib.figure import Figure

from kimi_mini.course.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, figure, human, styled

COLOURS = {"before": GREY, "lora": BLUE, "lora even": GREEN, "lora alone": SKY, "full": ORANGE}


@styled
def adapted(log: dict) -> Figure:
    """Left: the new world against what is kept, a point a run. Right: loss over tokens.

    log: that of `experiments.deployment.adapters`; a row a run {arm, seed, new, kept, learned, curve}.
    """
    fig, axes = figure(11, 4.6, 1, 2)
    left, right = axes[0]
    before = log["rows"][0]
    for arm, colour in COLOURS.items():
        runs = [row for row in log["rows"] if row["arm"] == arm]
        learned = f", {human(runs[0]['learned'])} weights" if runs and "learned" in runs[0] else ""
        left.scatter(
            [run["kept"] for run in runs],
            [run["new"] for run in runs],
            color=colour,
            s=70,
            edgecolor=BLACK,
            linewidth=0.6,
            label=f"{arm}{learned}",
            zorder=3,
        )
        for number, run in enumerate(run for run in runs if "curve" in run):
            tokens, at = 0.0, []
            for size in run["curve"]["tokens"]:
                tokens += size
                at.append(tokens)
            right.plot(
                at, run["curve"]["loss"], color=colour, linewidth=1.2, label=arm if number == 0 else None
            )
    left.axhline(0.9, color=GREY, linestyle=":")
    left.axvspan(before["kept"] - 0.02, before["kept"] + 0.02, color=GREY, alpha=0.15)
    left.set(
        xlim=(min(row["kept"] for row in log["rows"]) - 0.05, 1.02),
        ylim=(-0.05, 1.05),
        xlabel="what it knew: mean success of its families",
        ylabel="the new world: success",
        title="Learned and kept (grey: within two points)",
    )
    left.legend(loc="center left", fontsize=8)
    right.set(xlabel="tokens", ylabel="loss, nats a token", title="Loss while it learns", yscale="log")
    return fig
