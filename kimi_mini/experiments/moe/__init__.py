"""Notebook 01: routing, balance, specialisation, sparsity."""
