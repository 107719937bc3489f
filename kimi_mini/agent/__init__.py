"""messages -> calls -> results -> answer: conversation, loop, policies, traces, terminal"""

from kimi_mini.agent.conversation import Conversation
from kimi_mini.agent.folder import load_agent, save_agent
from kimi_mini.agent.loop import converse, play, run
from kimi_mini.agent.policy import LocalPolicy
from kimi_mini.worlds.rows import Limits

__all__ = ["Conversation", "Limits", "LocalPolicy", "converse", "load_agent", "play", "run", "save_agent"]
