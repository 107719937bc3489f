"""Notebook 07: what a short run of RL is worth."""
