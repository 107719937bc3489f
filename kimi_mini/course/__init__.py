"""what a reader of the notebooks sees: figures, sliders, exercises

from kimi_mini.course import exercises, explore, figures, logs
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`explore`, when it is asked for: a machine without ipywidgets can still draw figures."""
    if name != "explore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kimi_mini.course.sliders import explore

    return explore
