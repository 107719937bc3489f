"""Useful FLOPs of a batch, for MFU: only what the loss needs.

Real tokens through the layers, pairs of a query and a key that it may look at, and the head where a token is learned.
Padding, the masked half of attention and logits that no loss reads are work of the machine, but not of the model.
"""

from __future__ import annotations

from kimi_mini.model.config import KimiConfig
from kimi_mini.training.batch import Batch


def batch_flops(config: KimiConfig, batch: Batch) -> int:
    """FLOPs to train on a batch: forward, and twice that backward."""
    lengths = batch.valid.sum(1)
    tokens, pairs = int(lengths.sum()), int((lengths * (lengths + 1) // 2).sum())
    head = 2 * config.vocab_size * config.hidden_size
    of_a_token = config.flops_per_token(0) - head
    of_a_pair = config.flops_per_token(1) - config.flops_per_token(0)
    return 3 * (tokens * of_a_token + pairs * of_a_pair + batch.learned * head)
