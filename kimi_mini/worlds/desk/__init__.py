"""A desk at which tools of many trades lie: domains, tools that evolve from them, tasks in drawn words, verdicts."""

from kimi_mini.worlds.desk import world  # noqa: F401
