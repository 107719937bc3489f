"""messages -> calls -> results -> answer: conversation, loop, policies, traces, terminal"""

from kimi_mini.agent.folder import load_agent

__all__ = ["load_agent"]
