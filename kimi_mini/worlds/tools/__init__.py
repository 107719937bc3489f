"""Tools: declarations and checked calls, and isolated engines for code that a model wrote."""

from kimi_mini.worlds.tools.finder import FIND, FIND_FIRST, Finder
from kimi_mini.worlds.tools.sandbox import SandboxResult, run_python
from kimi_mini.worlds.tools.toolbox import MAX_CONTENT, Tool, Toolbox, ToolError, ToolResult

__all__ = [
    "FIND",
    "FIND_FIRST",
    "MAX_CONTENT",
    "Finder",
    "SandboxResult",
    "Tool",
    "ToolError",
    "ToolResult",
    "Toolbox",
    "run_python",
]
