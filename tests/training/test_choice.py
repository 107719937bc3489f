"""What is chosen for a device, with its reason; and useful FLOPs."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from kimi_mini import KimiConfig
from kimi_mini.training.batch import Batch, Example, collate, text_batch
from kimi_mini.training.machine.choice import choose
from kimi_mini.training.machine.flops import batch_flops
from kimi_mini.training.machine.placement import training_flops

GB = 10**9


@pytest.mark.parametrize(
    ("preset", "device", "gigabytes", "window", "step", "micro"),
    [
        ("nano", "cpu", 8, 256, 4096, 2048),
        ("mini", "cpu", 64, 256, 4096, 2048),
        ("nano", "cuda", 80, 256, 4096, None),
        ("mini", "cuda", 80, 1024, 131_072, 131_072),
        ("mini", "cuda", 24, 1024, 131_072, 65_536),
        ("mini", "mps", 16, 1024, 131_072, 32_768),
        ("midi", "cuda", 80, 2048, 131_072, 65_536),
        ("midi", "cuda", 40, 2048, 131_072, 16_384),
        ("midi", "cuda", 16, 2048, 131_072, 2048),  # one window: it is tried, and refused in one line
    ],
)
def test_the_choice_fits_the_device(preset, device, gigabytes, window, step, micro):
    found = choose(KimiConfig.preset(preset), device, gigabytes * GB)
    assert found[:3] == (window, step, micro)
    assert "\n" not in found.reason and len(found.reason) > 20


def test_what_was_measured_on_an_80_gb_card_fits_by_the_rule():
    """Peaks of feasibility: mini 32 GB at 131,072 tokens, midi 53 GB at 65,536, both without the optimizer."""
    from kimi_mini.training.machine.choice import BYTES

    for preset, tokens, peak in (("mini", 131_072, 32 * GB), ("midi", 65_536, 53 * GB)):
        config = KimiConfig.preset(preset)
        ours = BYTES * tokens * config.num_hidden_layers * config.hidden_size
        assert 0.8 * peak < ours + 4 * config.count_parameters().total < 1.1 * peak


def padded(rows, width):
    """The same rows with padding up to `width`."""
    batch = collate(rows)
    size = (len(rows), width - batch.ids.shape[1])
    wide = [torch.cat([x, torch.zeros(size, dtype=x.dtype)], 1) for x in (batch.ids, batch.mask, batch.valid)]
    return Batch(*wide)


def check_flops(count):
    """Padding adds nothing; a masked token costs no head; two rows of 4 are less than one of 8."""
    config = tiny_model(vocab_size=64).config
    rng = np.random.default_rng(0)
    rows = [Example(rng.integers(0, 64, size), np.ones(size, bool)) for size in (8, 5)]
    assert count(config, collate(rows)) == count(config, padded(rows, 40))
    masked = [Example(ids, np.arange(len(ids)) > 2) for ids, _ in rows]
    head = 3 * 2 * config.vocab_size * config.hidden_size
    assert count(config, collate(rows)) - count(config, collate(masked)) == head * 4
    ids = rng.integers(0, 64, 8)
    assert count(config, text_batch(ids.reshape(2, 4))) < count(config, text_batch(ids.reshape(1, 8))) - head
    whole = text_batch(rng.integers(0, 64, (3, 16)))
    assert (
        count(config, whole) == round(48 * training_flops(config, 16)) - 3 * head
    )  # first tokens are not learned


def test_only_real_tokens_pairs_and_losses_count():
    check_flops(batch_flops)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda config, batch: batch.ids.numel() * training_flops(config, batch.ids.shape[1]),  # padded
        lambda config, batch: int(batch.valid.sum()) * training_flops(config, batch.ids.shape[1]),  # masked
        lambda config, batch: batch.learned * training_flops(config, 8),
    ],
)
def test_wrong_counts_are_found_out(mutant):
    with pytest.raises(AssertionError):
        check_flops(mutant)
