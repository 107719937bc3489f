"""Sliders for a reader: `explore(draw, **controls)` redraws a figure while controls are moved.

`draw` is a pure function of the controls. It returns one of

    a matplotlib Figure              shown as PNG
    an object with _repr_html_       shown as HTML (IPython.display.HTML for instance)
    a string                         shown as it stands

The cell's output holds three forms of the same thing: the live widget, the picture at the starting values, which says
that it is frozen, and a line of text. So a page that cannot run anything (GitHub, nbviewer, an exported HTML file)
shows the picture, and no widget state has to be stored. `kimi_mini.course.notebook` takes the widget out of a notebook
that is kept, or JupyterLab would say "model not found" where a notebook was opened and not run.

    def waves(speed=2, blue=True): ...
    explore(waves, speed=(1, 9), blue=True)
"""

from __future__ import annotations

import base64
import html
import inspect
import io
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
DPI = 110  # pixels an inch of the picture
STRIP = 36  # pixels under a frozen picture, for the note


def explore(draw: Callable[..., Any], *, ends: bool = True, **controls: Any) -> Explorer:
    """Show what `draw` returns, with a control for each of its arguments. Put it last in a cell.

    A control is one of
        (low, high) or (low, high, step)    a slider, whole numbers if all are whole
        a list, or a dict label -> value    a choice
        True or False                       a tick box
        a string                            a line to type in
        a widget of ipywidgets              itself
    It starts at the argument's default in `draw`, or at its first value when there is no (fitting) default.

    With `ends` the function is also called once at the first and last value of every control, so that a slider that
    breaks at its far end fails here, in the cell, and not later under the reader's hand.

    Raises:
        TypeError: a control that `draw` has no argument for, or of a kind not listed above; no function to draw.
        ValueError: a slider whose numbers are not finite, out of order, or with a step that is not above 0.
        Whatever `draw` raises.
    """
    explorer = Explorer(draw, controls)
    if ends:
        explorer.check_ends()
    return explorer


class Explorer:
    """What `explore` returns. `values` are the controls' values now; `set(...)` moves them as a reader would."""

    def __init__(self, draw: Callable[..., Any], controls: Mapping[str, Any]):
        self.draw = draw
        defaults = _defaults(draw, controls)
        self.controls = {name: _control(name, spec, defaults.get(name)) for name, spec in controls.items()}
        self.problem = ipywidgets.HTML()
        self.picture: dict[str, str] = {}  # MIME type -> content, as displays store it
        self.canvas = ipywidgets.HTML()
        self._redraw()
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        self.widget = ipywidgets.VBox([*self.controls.values(), self.problem, self.canvas])

    @property
    def values(self) -> dict[str, Any]:
        """The arguments that `draw` gets."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> Explorer:
        """Move controls. Raises what `draw` raises, and KeyError for a control that is not there."""
        for name, value in values.items():
            self.controls[name].value = value
        return self

    def check_ends(self) -> None:
        """Call `draw` at both ends of every control, the others as they stand; nothing is shown."""
        now = self.values
        for name, control in self.controls.items():
            for value in _ends(control):
                self._call({**now, name: value})

    def _call(self, values: dict[str, Any]) -> Any:
        try:
            shown = self.draw(**values)
        except Exception as error:
            error.add_note(f"explore: {_assignment(values) or 'no controls'}")
            raise
        _close(shown)
        return shown

    def _redraw(self, _change: Any = None) -> None:
        """Put a new picture in place of the old one; an error is shown to the reader and raised."""
        try:
            self.picture = to_mime(self._call(self.values))
        except Exception as error:
            text = html.escape(f"{type(error).__name__}: {error}")
            self.problem.value = f"<pre style='color:#b00020'>{text}</pre>"
            raise
        self.problem.value = ""
        self.canvas.value = _as_html(self.picture)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        """Live widget, picture and text of the same moment; a page shows the richest that it can."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {WIDGET_VIEW: view, **freeze(self.picture, _assignment(self.values))}


def to_mime(shown: Any) -> dict[str, str]:
    """What `draw` returned as MIME type -> content: image/png (base64), or text/html, or text/plain.

    Raises TypeError for anything that cannot be shown.
    """
    if hasattr(shown, "savefig"):
        buffer = io.BytesIO()
        shown.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        return {"image/png": base64.b64encode(buffer.getvalue()).decode("ascii")}
    if isinstance(shown, str):
        return {"text/plain": shown}
    if hasattr(shown, "_repr_html_"):
        return {"text/html": shown._repr_html_()}
    raise TypeError(f"draw must return a figure, HTML or a string, not {type(shown).__name__}")


def freeze(picture: Mapping[str, str], where: str) -> dict[str, str]:
    """The content, MIME type -> content, with a note that nothing moves in it. where: the controls' values."""
    note = textwrap.shorten(f"frozen at {where}", 100, placeholder=" ...") + "; run the notebook to move it"
    frozen = {"text/plain": f"{picture.get('text/plain', '')}\n[{note}]".strip()}
    if "image/png" in picture:
        frozen["image/png"] = _under(picture["image/png"], note)
    if "text/html" in picture:
        frozen["text/html"] = f"{picture['text/html']}<p style='color:#666'>{html.escape(note)}</p>"
    return frozen


def _under(png: str, note: str) -> str:
    """A PNG (base64) with a line of text under it."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(base64.b64decode(png)))  # (height, width, 3 or 4)
    height, width = pixels.shape[0] + STRIP, pixels.shape[1]
    fig = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    fig.figimage(pixels, 0, STRIP)
    middle = 0.5 * STRIP / height
    fig.text(0.01, middle, note, va="center", fontsize=12, color="#666666", parse_math=False)
    return to_mime(fig)["image/png"]


def _as_html(picture: dict[str, str]) -> str:
    """The same content for the live widget."""
    if "image/png" in picture:
        return f'<img style="max-width:100%" src="data:image/png;base64,{picture["image/png"]}">'
    if "text/html" in picture:
        return picture["text/html"]
    return f"<pre>{html.escape(picture['text/plain'])}</pre>"


def _close(shown: Any) -> None:
    """Take a pyplot figure out of pyplot's hands, or the cell would show it a second time."""
    if hasattr(shown, "savefig") and getattr(shown, "number", None) is not None:
        from matplotlib import pyplot

        pyplot.close(shown)


def _assignment(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())


# -- controls ------------------------------------------------------------------------------------------


def _defaults(draw: Callable[..., Any], controls: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of draw's arguments. Raises TypeError when controls and arguments do not fit together."""
    if not callable(draw):
        raise TypeError(f"explore: the first argument must be a function, not {draw!r:.60}")
    signature = inspect.signature(draw)
    try:
        signature.bind(**controls)
    except TypeError as error:
        raise TypeError(f"explore: the controls do not fit draw{signature}: {error}") from None
    arguments = signature.parameters.items()
    return {name: p.default for name, p in arguments if p.default is not inspect.Parameter.empty}


def _control(name: str, spec: Any, start: Any) -> ipywidgets.Widget:
    """The widget for one control."""
    if isinstance(spec, ipywidgets.Widget):
        return spec
    if isinstance(spec, bool):
        return ipywidgets.Checkbox(value=start if isinstance(start, bool) else spec, description=name)
    if isinstance(spec, str):
        value = start if isinstance(start, str) else spec
        return ipywidgets.Text(
            value=value, description=name, continuous_update=False, layout={"width": "90%"}
        )
    if isinstance(spec, tuple) and len(spec) in (2, 3) and all(_is_number(end) for end in spec):
        return _slider(name, spec, start)
    if isinstance(spec, (list, dict)) and len(spec):
        return _choice(name, spec, start)
    kinds = "(low, high[, step]), a list, a dict, True, False, a string or a widget"
    raise TypeError(f"explore: control {name!r} must be {kinds}, not {spec!r:.60}")


_STYLE = {"description_width": "initial"}


def _is_number(value: Any) -> bool:
    """A whole number or a float; True and False are neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _choice(name: str, spec: list | dict, start: Any) -> ipywidgets.Widget:
    """A choice among the values of a list or dict. Raises TypeError for arrays: == does not say which one is meant."""
    values = list(spec.values()) if isinstance(spec, dict) else spec
    options = list(spec.items()) if isinstance(spec, dict) else spec
    if any(getattr(value, "shape", ()) != () for value in values):
        raise TypeError(
            f"explore: control {name!r} offers arrays: offer names, and look the arrays up in draw"
        )
    first = start if start in values else values[0]
    return ipywidgets.Dropdown(options=options, value=first, description=name, style=_STYLE)


def _slider(name: str, spec: tuple, start: Any) -> ipywidgets.Widget:
    """A slider over (low, high[, step]). Raises ValueError unless they are finite, in order, and the step above 0."""
    low, high = spec[:2]
    if not all(math.isfinite(end) for end in spec) or low > high or (len(spec) == 3 and spec[2] <= 0):
        needs = "finite numbers, the lower one first, and a step above 0"
        raise ValueError(f"explore: control {name!r} needs {needs}, not {spec!r}")
    whole = all(isinstance(end, int) for end in spec)
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    step = spec[2] if len(spec) == 3 else 1 if whole else (high - low) / 50 or 1.0
    fits = isinstance(start, (int, float)) and low <= start <= high
    return kind(
        min=low,
        max=high,
        step=step,
        value=start if fits else low,
        description=name,
        style=_STYLE,
        layout={"width": "70%"},
    )


def _ends(control: ipywidgets.Widget) -> list[Any]:
    """First and last value of a control; none for a line of text."""
    if hasattr(control, "min") and hasattr(control, "max"):
        return [control.min, control.max]
    if hasattr(control, "options"):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return [values[0], values[-1]]
    return [False, True] if isinstance(control, ipywidgets.Checkbox) else []
