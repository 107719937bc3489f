"""Notebook 02: heads and long context."""
