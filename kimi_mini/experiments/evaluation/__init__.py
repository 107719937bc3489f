"""Notebook 09: how good is the agent, and how sure are we."""
