"""Notebook 10: speed."""
