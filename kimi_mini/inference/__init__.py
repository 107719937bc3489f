"""Prompt tokens to new tokens: cache, decoder, sampling, thinking budgets, attempts."""
