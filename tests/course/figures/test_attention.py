"""Figures of attention: drawn from plain numbers, and refused when they do not fit together."""

import numpy as np
import pytest

from kimi_mini.course.figures import attention as va

FLOPS = [
    {"context": 4096, "64": 1e11, "128": 1.5e11, "more": 0.5},
    {"context": 8192, "64": 2e11, "128": 3.6e11, "more": 0.8},
]


def test_attention_map_shows_every_token_and_hides_the_future():
    weights = np.tril(np.full((3, 3), 0.25))
    fig = va.attention_map(["a", "\n", "<|im_assistant|>"], weights, "layer 0")
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "⏎", "<|im_ass…"]
    shown = ax.images[0].get_array()
    assert shown.mask[0, 1] and not shown.mask[1, 0] and shown[1, 0] == 0.5
    with pytest.raises(ValueError, match="need weights"):
        va.attention_map(["a"], weights)


def test_needle_maps_write_every_value():
    fig = va.needle_maps({"YaRN": [[1, 0.5], [0.9, 0.25]], "none": [[1, 0], [1, 0]]}, (64, 512), (0, 1), 64)
    assert [text.get_text() for text in fig.axes[0].texts] == ["1.00", "0.50", "0.90", "0.25"]
    assert "512" in fig._suptitle.get_text()


def test_frequency_steps_mark_the_step():
    fig = va.frequency_steps({"plain": [1, 0.1], "YaRN": [1, 0.0125]}, 64, 512, step=0)
    assert "step at 0/1" in fig.axes[0].texts[0].get_text()


def test_the_others_draw_one_line_an_arm():
    arms = {"a": [3.0, 2.0], "b": [3.0, 2.5]}
    fig = va.loss_by_position({"before": arms, "after": arms}, 32, 64)
    assert len(fig.axes) == 2 and len(fig.axes[1].lines) == 3
    fig = va.heads_study({0: [5.0, 4.9], 1: [5.1, 5.0]}, (3, 6), FLOPS)
    assert "+80%" in fig.axes[1].texts[0].get_text()
    fig = va.decode_times({"naive": {64: 2.0, 128: 4.0}, "absorbed": {64: 1.0, 128: 2.0}})
    assert [line.get_label() for line in fig.axes[0].lines] == ["naive", "absorbed"]
