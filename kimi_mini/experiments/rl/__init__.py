"""Notebook 07: what RL is worth, and each of its safeguards."""
