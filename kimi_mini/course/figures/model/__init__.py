"""Figures of the inside of the model: attention, experts, routing."""
