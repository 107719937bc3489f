"""Figures as pure functions of numbers, one file a subject."""
