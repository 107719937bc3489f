"""Exercises about the inside of the model: experts, attention."""
