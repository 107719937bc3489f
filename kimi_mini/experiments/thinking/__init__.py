"""Notebook 08: modes, budgets, parallel attempts, long horizons, whether the thought is used."""
