"""Notebooks 03 and 04: attention logits, QK-Clip, tokens to a loss."""
