"""The figure of experts in few bits shows the numbers that it was given, each training apart."""

import pytest
import torch
from drawn import texts

from kimi_mini.course.figures.deployment import int4

LEVELS = {"fp32": 0.9, "int4": 0.8, "mxfp4": 0.7, "int3": 0.6, "int2": 0.3}


def row(seed, name, training, value):
    drift = {"kl": [0.1 * value, 0.2 * value], "flips": [0.0, 0.0]}
    success = {"a": value + 0.01 * seed, "b": value - 0.03 * seed}
    head = {"kind": "trained", "seed": seed, "format": name, "training": training}
    return head | {"success": success, "text": 4 - value, "drift": drift}


def log():
    rows = [row(seed, name, "plain", value) for name, value in LEVELS.items() for seed in (0, 1)]
    rows += [row(seed, "int2", "aware", 0.8) for seed in (0, 1)]
    for name, value in (("int4", 0.2), ("fp32", 0.4)):
        rows.append(
            {"kind": "reader", "format": name, "training": "plain", "success": {"a": value, "c": 0.0}}
        )
    return {"rows": rows}


def test_each_format_has_its_runs_and_their_mean():
    fig = int4.int4(log(), "t")
    success, text, drift = fig.axes
    points = {line.get_marker(): [] for line in success.lines}
    for line in success.lines:
        points[line.get_marker()].append((round(line.get_xdata()[0]), list(line.get_ydata())))
    assert points["o"] == [(i, pytest.approx([v, v - 0.01])) for i, v in enumerate(LEVELS.values())]
    assert points["D"] == [(4, pytest.approx([0.8, 0.79]))]
    assert [y for _, (y,) in points["_"]] == pytest.approx(
        [v - 0.005 for v in LEVELS.values()][:4] + [0.295, 0.795]
    )
    assert points["s"] == [(0, pytest.approx([0.2, 0.1]))]  # one line, fp32 first
    assert len(text.lines) == len(success.lines) - 1  # it has no loss on text
    shown = {line.get_label(): list(line.get_ydata()) for line in drift.lines}
    assert shown["2 bits"] == pytest.approx([0.03, 0.06]) and set(shown) == {
        "INT4",
        "MXFP4",
        "3 bits",
        "2 bits",
    }
    assert {"rounded afterwards", "trained with it"} <= set(texts(fig))
    assert any("agent that reads" in text for text in texts(fig))


def test_what_is_kept_stands_beside_what_it_was():
    """Errors are kept - weight; both rows have their columns in order."""
    weight = torch.arange(6.0).view(2, 3) / 10
    fig = int4.kept(weight, weight + 0.05, "halves", columns=2)
    left, right = fig.axes
    given, found = (line.get_ydata() for line in left.lines)
    assert list(given) == pytest.approx([0, 0.1]) and list(found) == pytest.approx([0.05, 0.15])
    counts = [patch.get_height() for patch in right.patches]
    assert sum(counts) == 6 and counts.index(6) > len(counts) / 2  # all of them are too large
    assert left.get_title(loc="left") == "halves"
