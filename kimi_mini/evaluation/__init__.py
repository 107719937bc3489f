"""is it right, and how sure are we: scoreboard, rubrics, adversaries, probes of the inside"""
