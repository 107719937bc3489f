"""Notebook 11: text that is refined in place of written, against text written from left to right, and RL over both."""
