"""Exercises about how weights are learned: optimizers, pre-training."""
