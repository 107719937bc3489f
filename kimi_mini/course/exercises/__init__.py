"""Checkers and hints of the notebooks' exercises, one file a notebook."""
