"""Masked diffusion: noise, the bound that is trained, and what a policy gradient takes for a log-probability."""

from kimi_mini.training.diffusion.bound import Noised, bound, canvases, hide, refined_losses

__all__ = ["Noised", "bound", "canvases", "hide", "refined_losses"]
