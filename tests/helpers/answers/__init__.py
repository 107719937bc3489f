"""Answers to the exercises, a module a notebook: RIGHT holds (checker, answer), WRONG (checker, answer, words of the hint)."""

from answers import agent, attention, moe, muonclip, overview, pretraining, thinking, verifiers

PAGES = (overview, moe, attention, muonclip, pretraining, agent, verifiers, thinking)
RIGHT = [pair for page in PAGES for pair in page.RIGHT]
WRONG = [case for page in PAGES for case in page.WRONG]
