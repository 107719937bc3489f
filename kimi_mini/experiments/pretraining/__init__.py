"""Notebook 04: rephrasing and the facts it is measured on."""
