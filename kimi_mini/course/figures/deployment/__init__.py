"""Figures of notebook 10, one file a part."""
