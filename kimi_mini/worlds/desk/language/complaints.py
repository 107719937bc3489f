"""What a tool says when it cannot, in the words of whoever wrote it: a thing is not there, it is busy, it is broken.

Slots: {name} the thing, {tool} the tool, {word} any word. A complaint that tells a name says that the thing is not
there; whatever it says besides, it is worth one more try and no third one.
"""

from __future__ import annotations

import random

from kimi_mini.worlds.desk.language.frames import expanded
from kimi_mini.worlds.desk.language.words import word

ABSENT = expanded("""
[{name} not found|{name} was not found|could not find {name}|cannot find {name}|not found: {name}]
[unknown: {name}|unknown name {name}|{name} is unknown|{name} does not exist|no such thing: {name}]
[there is no {name}|there is nothing called {name}|nothing is called {name}|no entry for {name}|we have no {name}]
[{name}: no entry|{name}: missing|{name} is missing|{name} has no entry|"{name}" is none of ours]
[{tool} failed: KeyError: '{name}'|{tool} failed: KeyError: "{name}"|{tool} failed: LookupError: {name}]
[{tool} failed: ValueError: unknown {name}|{tool} failed: ValueError: no {name}|{tool} failed: ValueError: {name}?]
[{tool} failed: KeyError: 'no {name}'|{tool} failed: ValueError: {name} {word}|{tool} failed: ValueError: {word} {name}]
[{word} {name}|{name} {word}|{word} {word}: {name}|{name} {word} {word}|"{name}": {word}]
""")
PASSING = expanded("""
[busy; retry|timed out, again|too many calls: repeat|no answer yet, retry|line is down, again|still starting, wait]
[locked by another user; again|{tool} failed: TimeoutError: 10 s|{tool} failed: TimeoutError: timed out]
{tool} failed: [ConnectionError: reset|ConnectionError: refused|OSError: busy|RuntimeError: try later]
[{word} {word}|{word}|{word}: {word} {word}|{tool} failed: RuntimeError: {word}|{tool} failed: OSError: {word} {word}]
""")
LASTING = expanded("""
[access refused|you may not do this|only for owners|closed for good|this tool is retired|disabled]
{tool} failed: [PermissionError: refused|NotImplementedError: not yet|RuntimeError: disabled|RuntimeError: retired]
""")


def complaint(rng: random.Random, forms: tuple[str, ...]) -> str:
    """One of these forms, its words drawn; {name} and {tool} are kept as slots."""
    text = rng.choice(forms)
    while "{word}" in text:
        text = text.replace("{word}", word(rng), 1)
    return text
