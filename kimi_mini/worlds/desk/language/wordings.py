"""What people say: an opening, a frame of the pattern, an ending; and talk that asks for no tool."""

from __future__ import annotations

import random
from collections.abc import Callable

from kimi_mini.worlds.desk.language.frames import (
    FRAMES,
    HELD_OUT_FRAMES,
    LATER,
    LATER_PLAIN,
    PLAIN,
    expanded,
    voice,
)

OPENINGS = ("",) * 14 + expanded("""
[Please|Now|Next,|So,|First of all,|Hi!|Hello,|Hello Kimi,|Hi there,|Good evening.|OK,|Well,|Excuse me,]
[I have a task:|Quick one:|A customer asks:|For my notes:|A question:|Another one:|This is for today:]
[Could you help?|Next job.|I need your help.|When you have a moment:|If you please:|Here is my wish:]
""")
ENDINGS = ("",) * 14 + expanded("""
[Thanks.|Thank you!|Many thanks.|It is urgent.|Be quick.|That is all.|I wait here.|Take care.|Use the tools.|Please.]
[It matters to me.|Be exact.|Do not guess.|I need it today.|Then we are done.|Nothing else.|This is for a friend.]
[You can do it.|Start now.|I count on you.|Let me know.|That would help.]
""")
HELD_OUT_OPENINGS = ("",) + expanded("""
[Good morning.|Sorry to bother you;|My boss wants this:|Dear Kimi,|Greetings!|From the front office:|A small favour,]
""")
HELD_OUT_ENDINGS = ("",) + expanded("[Much obliged.|Cheers!|No rush.|Bye.|Sent from my phone.|Over and out.]")

TALK = expanded("""
[Hello!|How are you today?|What is the weather like?|Tell me a joke.|Who wrote this?|Sing me a song.|Good night.]
[What time is it?|Are you a robot?|I am tired.|What do you think about {a}?|Sketch {a} for me.|Call my brother.]
[Translate {a} into French.|Why is the sky blue?|Do you like {a}?|Write a poem about {a}.]
[Find me a hotel by the sea.|Remind me tomorrow.|Explain {a} to me.|Write a letter to {a}.|Is {a} happy?]
[How far is the moon?|I had a bad day.|Who was the first king?|Wake me at six.]
[Turn on the light.|Open the window.|Can you dance?|My name is {a}.|Have you met {a}?]
[Who is {a}?|When was {a} born?|Say something kind.|What did you dream?|Is it cold outside?|Count to a million.]
[Draft a speech on {a}.|Tell me a story about {a}.|Read the news to me.|Do you sleep at night?|I love {a}.]
[Which language do you speak?|Where do you live?|Let us talk about {a}.|It rains again.|Make me laugh.]
[Rhyme {a} with something.|Why are people sad?|Teach me to swim.|I do not know what to do.|Nice to meet you.]
[Shall we play a game?|Is {a} a good idea?|What does {a} taste like?|Guess my age.|Close the door behind you.]
[Whistle a tune.|Can you keep a secret?|I forgot my umbrella.]
""")
HELD_OUT_TALK = expanded("""
[Hey there.|Which team won last night?|My cat is ill.|Draw a picture of {a}.|How old are you?|Order a taxi.]
[Play some music by {a}.|Spell {a} backwards.|Any plans for supper?|Did {a} phone back?|Sum up the latest gossip.]
[Recommend a movie.|Whom should I vote for?|Lock up the bikes.|Photograph {a} from above.|Does {a} hurt?]
[Convert ten miles to kilometres.|Can birds smell?|Give {a} a nickname.|Pray for {a}.|Reset my password.]
[Compose a tune called {a}.|Who invented glass?|Am I late?|Switch off your microphone.|Happy birthday!]
""")
AROUND = voice("around")
LATER_OPENINGS, LATER_ENDINGS = (("",) * 20 + AROUND[name] for name in ("openings", "endings"))
LATER_TALK = AROUND["talk"]
NAMED = ("{a}", "{b}", "{list}")  # how a frame begins that begins with a name
NUMBERS = "zero one two three four five six seven eight nine".split()


def _linked(link: str) -> Callable[[list[str]], str]:
    return lambda entries: ", ".join(entries[:-1]) + link + entries[-1]


def _marked(mark: str, between: str = "") -> Callable[[list[str]], str]:
    return lambda entries: between.join(
        mark.format(i + 1, "abcdefgh"[i]) + entry for i, entry in enumerate(entries)
    )


LIST_STYLES = (
    *(", ".join, "; ".join, _marked("{1} ", ", "), _marked("{0}) ", " ")),
    *map(_linked, (" and ", ", and ", " as well as ")),
    *map(_marked, ("\n- ", "\n{0}. ", "\n")),
)
HELD_OUT_LIST_STYLES = (" / ".join, " | ".join, _linked(" plus "), _marked("\n* "))


def listed(
    rng: random.Random, entries: list[str], held_out: bool = False, links: tuple[str, ...] = ()
) -> str:
    """A list in one of several styles; a single entry as it is. links: what else may stand before the last entry."""
    if len(entries) == 1:
        return entries[0]
    return rng.choice(HELD_OUT_LIST_STYLES if held_out else (*LIST_STYLES, *map(_linked, links)))(entries)


def capital(text: str) -> str:
    """The text with its first letter large."""
    return text[0].upper() + text[1:]


def said(
    rng: random.Random,
    pattern: str,
    held_out: bool = False,
    breadth: float = 1.0,
    plainly: bool = False,
    **slots: object,
) -> str:
    """A request of that pattern in drawn words; the slots are kept as they are. breadth: how many of the frames, above
    1 those of the later voices for one request in two; plainly: those of the plain voice, half of them with nothing
    before and behind."""
    frames, openings, endings = _pools(held_out, plainly, breadth > 1 and rng.random() < 0.5)
    few = len(frames[pattern]) if held_out else max(4, round(breadth * len(frames[pattern])))
    frame = rng.choice(frames[pattern][:few])
    alone = plainly and rng.random() < 0.5
    opening = "" if alone else rng.choice(openings)
    ending = "" if alone else rng.choice(endings)
    if rng.random() < 0.15:
        frame = frame.rstrip(".?!")
    # A name is written as it is, and a plain sentence may begin with one.
    if plainly and frame.startswith(NAMED):
        return " ".join(filter(None, (opening, frame.format(**slots), ending)))
    return _put(opening, frame.format(**slots), ending)


def _pools(held_out: bool, plainly: bool, later: bool) -> tuple[dict[str, tuple[str, ...]], tuple, tuple]:
    """Frames, openings and endings."""
    if held_out:
        return HELD_OUT_FRAMES, HELD_OUT_OPENINGS, HELD_OUT_ENDINGS
    if later:
        return LATER_PLAIN if plainly else LATER, LATER_OPENINGS, LATER_ENDINGS
    return PLAIN if plainly else FRAMES, OPENINGS, ENDINGS


def talk(
    rng: random.Random, name: str, held_out: bool = False, plainly: bool = False, breadth: float = 1.0
) -> str:
    """A sentence that no tool serves, now and then about `name`; plainly: one in two begins and ends as requests do."""
    later = breadth > 1 and rng.random() < 0.5
    text = rng.choice(HELD_OUT_TALK if held_out else LATER_TALK if later else TALK).format(a=name)
    if not plainly or rng.random() < 0.5:
        return text
    _, openings, endings = _pools(held_out, plainly, later)
    return _put(rng.choice(openings), text, rng.choice(endings))


def _put(opening: str, text: str, ending: str) -> str:
    begins = not opening or opening[-1] in ".!?"
    text = capital(text) if begins else text if text.startswith("I ") else text[0].lower() + text[1:]
    return " ".join(filter(None, (opening, text, ending)))
