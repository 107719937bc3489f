"""What an agent is used to: the system text where nobody sends one, and the order of the keys in a declaration.

A small model reads the form that it was trained on. Clients are free to send another one: JSON gives its keys no order,
and a system message may be left out. So a folder says what its agent knows (agent.json), and whoever makes a prompt of
somebody else's request (the endpoint) brings the request into that form. What the folder does not say stays as it came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kimi_mini.base.errors import BadFile
from kimi_mini.base.files import write_json
from kimi_mini.text.chat import CHAT_TEMPLATE, DEFAULT_SYSTEM

FILE = "agent.json"
LISTED, DESCRIBED = "listed", "described tools sorted"
ORDERS = (None, LISTED, DESCRIBED)

# The order of LISTED: OpenAI's own, in which our worlds declare their tools.
TOOL, FUNCTION = ("type", "function"), ("name", "description", "parameters")
SCHEMA = ("type", "description", "enum", "minimum", "maximum", "items", "properties", "required")
ONE, MANY = ("items", "additionalProperties", "not"), ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "$defs", "definitions")


@dataclass(frozen=True)
class Habits:
    """system: the text of the system message where a client sends none. declarations: the order of their keys, at every
    depth. LISTED: TOOL, FUNCTION and SCHEMA, the arguments in the order of `required`, and then what is not among these
    as it came. DESCRIBED: so too, but the keys of a tool that has a description are sorted, as K2's own tokenizer sorts
    them (a description then stands before the name). None: as they came."""

    system: str = DEFAULT_SYSTEM
    declarations: str | None = None

    def ordered(self, tools: Sequence[Any] | None) -> list[Any] | None:
        """The declarations with their keys in the agent's order; what is no declaration stays as it is."""
        if tools is None or self.declarations is None:
            return tools
        return [self._ordered(tool) for tool in tools]

    def _ordered(self, tool: Any) -> Any:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            return tool
        if self.declarations == DESCRIBED and function.get("description"):
            return _sorted(tool)
        inner = _first(function, FUNCTION)
        if "parameters" in inner:
            inner["parameters"] = _schema(inner["parameters"])
        return _first(tool, TOOL) | {"function": inner}

    @property
    def template(self) -> str:
        """The chat template of the folder, for engines that are not ours. It says the agent's system text, and sorts
        the keys of described tools. It does not put other keys in order, which a template cannot do simply: OpenAI's
        clients send them as LISTED has them."""
        made = CHAT_TEMPLATE.replace(DEFAULT_SYSTEM, self.system)
        if self.declarations != DESCRIBED:
            return made
        one = (
            "{%- for tool in tools -%}\n"
            "    {%- set described = ((tool.function or {}).description or '') != '' -%}\n"
            "    {{- tool | tojson(separators=(',', ':'), sort_keys=described) ~ (',' if not loop.last else '') -}}\n"
            "  {%- endfor -%}"
        )
        return made.replace("{{ tools | tojson(separators=(',', ':')) }}", f"[{one}]")

    def save(self, folder: str | Path) -> None:
        """Write agent.json, whole or not at all."""
        write_json(Path(folder) / FILE, asdict(self))

    @classmethod
    def load(cls, folder: str | Path) -> Habits:
        """What agent.json says; of a folder without one, nothing. BadFile, in one line, for one that is none."""
        file = Path(folder) / FILE
        if not file.is_file():
            return cls()
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            found = cls(**said)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise BadFile(f"{file}: {error!s:.100}") from None
        if not isinstance(found.system, str) or found.declarations not in ORDERS:
            raise BadFile(f"{file}: system is a text, declarations one of {', '.join(map(repr, ORDERS))}")
        return found


def _first(mapping: dict, keys: Iterable[Any]) -> dict:
    """These keys in front, the others behind them as they stood."""
    front = {key: mapping[key] for key in keys if isinstance(key, str) and key in mapping}
    return front | mapping


def _schema(schema: Any) -> Any:
    """A JSON schema in the order of LISTED; values such as those of `enum` and `default` stay as they are."""
    if not isinstance(schema, dict):
        return schema
    made = _first(schema, SCHEMA)
    for key, value in made.items():
        if key in ONE:
            made[key] = _schema(value)
        elif key in MANY and isinstance(value, list):
            made[key] = [_schema(one) for one in value]
        elif key in NAMED and isinstance(value, dict):
            required = made.get("required") if key == "properties" else None
            named = _first(value, required if isinstance(required, list) else ())
            made[key] = {name: _schema(one) for name, one in named.items()}
    return made


def _sorted(value: Any) -> Any:
    """Dicts at every depth with their keys in order; lists keep theirs."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
