"""Tools: declarations and checked calls, and isolated engines for code that a model wrote."""

from kimi_mini.worlds.tools.sandbox import run_python
from kimi_mini.worlds.tools.toolbox import Tool, Toolbox

__all__ = ["Tool", "Toolbox", "run_python"]
