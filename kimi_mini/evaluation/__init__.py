"""Is it right, and how sure are we: scoreboard, rubrics, adversaries, and probes of the inside."""
