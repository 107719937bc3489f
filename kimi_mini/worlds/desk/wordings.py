"""What people say: a grammar a pattern. An opening, a frame, an ending; held-out ones share no frame with the trained.

Slots: {a} and {b} names in quotes, {list} a list, {word} a number's or link's word, {thing}, {things}, {n}, {limit},
{do} a deed with its verb and number, {verb}, {then} and {other} deeds.
"""

from __future__ import annotations

import random

OPENINGS = (
    *[""] * 8,
    "Please ",
    "Hi! ",
    "Hello, ",
    "Now ",
    "I have a task: ",
    "Could you help? ",
    "Quick one: ",
    "A customer asks: ",
    "For my notes: ",
    "Next job. ",
    "OK, ",
    "When you have a moment: ",
)
ENDINGS = (
    *[""] * 8,
    " Thanks.",
    " Thank you!",
    " It is urgent.",
    " Be quick.",
    " That is all.",
    " I wait here.",
    " Take care.",
    " Use the tools.",
)
HELD_OUT_OPENINGS = ("Good morning. ", "Sorry to bother you; ", "My boss wants this: ", "Dear Kimi, ", "")
HELD_OUT_ENDINGS = (" Much obliged.", " Cheers!", " No rush.", "")

FRAMES: dict[str, tuple[str, ...]] = {
    "ask": (
        "What is the {word} of {list}?",
        "Tell me the {word} of {list}.",
        "Give me the {word} of {list}.",
        "{word} of {list}?",
        "Look up the {word} of {list}.",
        "I want to know the {word} of {list}.",
        "Find out what {word} {list} has.",
        "Say the {word} for {list}.",
        "Which {word} has {list}?",
        "Read me the {word} of this {thing}: {list}.",
        "Check {list}: what is the {word}?",
        "For {list}, what {word} is written down?",
    ),
    "trace": (
        "Follow the {word} from {a} until there is none. Which {thing} is last?",
        "Start at {a} and go to its {word} again and again. Where does it end?",
        "From {a}, take the {word} each time until none is left. What is the last {thing}?",
        "Which {thing} do you reach from {a} by always taking the {word}?",
        "Begin with {a}. Go on to the {word} until it stops. Name the last {thing}.",
        "Go from {a} along {word} to the end and tell me the {thing}.",
        "{a} has a {word}, which has a {word} too, and so on. Which is the final {thing}?",
        "Find the end of the chain: {a}, its {word}, the {word} of that, and on.",
        "Keep following {word} from {a}. Which {thing} has none?",
        "Trace {word} starting from {a}. What comes last?",
    ),
    "branch": (
        "If the {word} of {a} is below {limit}, {then}, else {other}.",
        "Look at the {word} of {a}. Below {limit}: {then}. Otherwise: {other}.",
        "Check {a}: when its {word} is less than {limit}, {then}; if not, {other}.",
        "{then} if the {word} of {a} is under {limit}; otherwise {other}.",
        "Is the {word} of {a} smaller than {limit}? Then {then}. If it is not, {other}.",
        "When {a} has a {word} below {limit}, {then}. In the other case {other}.",
        "Depending on the {word} of {a}: under {limit} {then}, from {limit} on {other}.",
        "See what {word} {a} has. Less than {limit} means {then}; anything else means {other}.",
        "In case the {word} of {a} is below {limit} {then}, and else {other}.",
        "Only if {a} has less than {limit} {word} {then}. If it has more or as much, {other}.",
    ),
    "least": (
        "Which has the lowest {word}: {list}?",
        "Which {thing} has the smallest {word}: {list}?",
        "Of {list}, which has the least {word}?",
        "Find the {thing} with the lowest {word} among {list}.",
        "Compare the {word} of {list}. Which is lowest?",
        "Here are some {things}: {list}. Tell me the one with the smallest {word}.",
        "I need the {thing} of lowest {word} out of {list}.",
        "{list}: which one has the least {word}?",
        "Look at the {word} of {list} and name the smallest.",
        "Pick from {list} the {thing} whose {word} is lowest.",
    ),
    "orders": (
        "{verb} {list}.",
        "I want you to {verb} {list}.",
        "Could you {verb} {list}?",
        "To do: {verb} {list}.",
        "We have to {verb} {list}.",
        "{verb} the following: {list}.",
        "My list says {verb} {list}.",
        "It is time to {verb} {list}.",
        "Will you {verb} {list}?",
        "Let us {verb} {list}.",
    ),
    "search": (
        "Of the {things} with {key} {n}, which has the lowest {word}?",
        "Find all {things} whose {key} is {n}. Which of them has the smallest {word}?",
        "Which {thing} with a {key} of {n} has the least {word}?",
        "Search for {key} {n} and tell me which {thing} there has the lowest {word}.",
        "Among the {things} of {key} {n}, name the one with the smallest {word}.",
        "Take the {things} that have {key} {n}. Lowest {word}?",
        "I look for a {thing}: {key} must be {n}, and {word} as low as possible.",
        "List {things} by {key} {n}, then pick the one with the least {word}.",
        "Only {things} with {key} {n} count. Which one is lowest in {word}?",
        "Out of every {thing} at {key} {n} choose the one of smallest {word}.",
    ),
    "copy": (
        "Give {b} the same {word} as {a}.",
        "Set the {word} of {b} to that of {a}.",
        "Copy the {word} from {a} to {b}.",
        "Make the {word} of {b} equal to the {word} of {a}.",
        "Look up the {word} of {a} and write it down for {b}.",
        "{b} should have the {word} that {a} has.",
        "Change the {word} of {b}: it must be as in {a}.",
        "Read the {word} of {a}, then set {b} to it.",
        "Let {b} have what {a} has as {word}.",
        "Take over the {word} of {a} for {b}.",
    ),
    "create": (
        "Add a new {thing} {a} with {word} {n}, then read its {word} back.",
        "Enter {a} with a {word} of {n} and check which {word} it has.",
        "Create the {thing} {a}, {word} {n}. Afterwards tell me its {word}.",
        "There is a new {thing}: {a}, {word} {n}. Enter it and look it up.",
        "Make a {thing} named {a} whose {word} is {n}; then verify the {word}.",
        "Put {a} in with {word} {n}, and say what {word} is stored.",
        "New {thing} {a}: {word} {n}. Store it, then read the {word}.",
        "Register {a} ({word} {n}) and confirm its {word}.",
        "We got {a}, a {thing} with {word} {n}. Add it. What {word} do you find then?",
        "Write down {a} with {n} as its {word}, then look whether it is there.",
    ),
}
HELD_OUT_FRAMES: dict[str, tuple[str, ...]] = {
    "ask": (
        "How does {list} stand with regard to {word}?",
        "I forgot the {word} that belongs to {list}.",
        "Someone needs {list} with the {word}.",
        "Would you know what {word} {list} goes by?",
        "The {word}, for {list}, if you can see it?",
    ),
    "trace": (
        "Where do I get to if I leave {a} by its {word} and never stop doing so?",
        "Hop from {a} to the {word}, hop again, until you cannot. On which {thing} are you?",
        "The {word} of {a}, then the {word} of what you got, to the very bottom, please.",
        "At which {thing} does the line of {word} that opens with {a} run out?",
        "Walk down every {word} behind {a} and give me the one at the far end.",
    ),
    "branch": (
        "Should {a} turn out to have a {word} beneath {limit}, {then}, failing which {other}.",
        "{other}, unless the {word} of {a} is below {limit}, for then {then}.",
        "My rule for {a}: {word} < {limit} leads to {then}, all else to {other}.",
        "What to do hangs on {a}. With a {word} not reaching {limit}, {then}. Having {limit} or above, {other}.",
        "Provided {a} shows a {word} under {limit}: {then}. Contrary result: {other}.",
    ),
    "least": (
        "Someone must have the minimum of {word} here, who? {list}",
        "Sort {list} by {word}, I only care for the bottom one.",
        "I would like whichever of {list} is least in {word}.",
        "Between {list}, the winner is whoever has the lowest {word}.",
        "Minimum {word}, please, candidates are {list}.",
    ),
    "orders": (
        "Go ahead and {verb} {list}.",
        "What I am after: {verb} {list}, nothing else.",
        "You are asked to {verb} {list}.",
        "Somebody ought to {verb} {list}, so do it.",
        "See to it that you {verb} {list}.",
    ),
    "search": (
        "Restrict yourself to {key} {n}; whose {word} is the minimum?",
        "In the group of {things} for which {key} says {n}, who is bottom by {word}?",
        "{key} equals {n}. Under that condition I want the {thing} of minimal {word}.",
        "Filter on {key} = {n} and report the {thing} having the lowest {word}.",
        "Where {key} is {n} there should be several {things}; the smallest {word} wins.",
    ),
    "copy": (
        "Whatever {word} you see at {a} belongs at {b} as well.",
        "Bring {b} into line with {a} as far as {word} goes.",
        "Transfer {word}: source {a}, target {b}.",
        "Overwrite the {word} of {b} by using the one found under {a}.",
        "I wish {b} matched {a} in {word}.",
    ),
    "create": (
        "Please open a record called {a}, fill {word} with {n}, and quote the {word} back to me.",
        "{a} is missing from our {things}; insert it ({word}: {n}) and show the {word} you can see.",
        "After inserting {a} at {word} {n}, prove it by reading the {word}.",
        "Have {a} included, its {word} being {n}, and double-check that {word}.",
        "Include one more {thing}, {a}, valued {n} in {word}; report the {word}.",
    ),
}
TALK = (
    "Hello!",
    "How are you today?",
    "What is the weather like?",
    "Tell me a joke.",
    "Who wrote this?",
    "Sing me a song.",
    "What time is it?",
    "Are you a robot?",
    "Good night.",
    "I am tired.",
    "What do you think about {a}?",
    "Paint {a} for me.",
    "Translate {a} into French.",
    "Call my brother.",
    "Where is {a} from?",
    "Why is the sky blue?",
    "Do you like {a}?",
    "Write a poem about {a}.",
    "Book a table for two.",
    "Remind me tomorrow.",
    "Explain {a} to me.",
    "Send a letter to {a}.",
    "Is {a} happy?",
    "What is the meaning of {a}?",
)
HELD_OUT_TALK = (
    "Hey there.",
    "Which team won last night?",
    "My cat is ill.",
    "Draw a picture of {a}.",
    "How old are you?",
    "Order a taxi.",
    "Play some music by {a}.",
    "Spell {a} backwards.",
    "What should I cook tonight?",
)
NUMBERS = "zero one two three four five six seven eight nine".split()


def said(
    rng: random.Random, pattern: str, held_out: bool = False, breadth: float = 1.0, **slots: object
) -> str:
    """A request of that pattern in drawn words; the slots are kept as they are. breadth: how many of the frames."""
    frames = (HELD_OUT_FRAMES if held_out else FRAMES)[pattern]
    frame = rng.choice(frames if held_out else frames[: max(4, round(breadth * len(frames)))])
    opening = rng.choice(HELD_OUT_OPENINGS if held_out else OPENINGS)
    ending = rng.choice(HELD_OUT_ENDINGS if held_out else ENDINGS)
    if rng.random() < 0.15:
        frame = frame.rstrip(".?!")
    text = frame.format(**slots)
    begins = not opening or opening.rstrip()[-1] in ".!?"
    text = capital(text) if begins else text if text.startswith("I ") else text[0].lower() + text[1:]
    return opening + text + ending


def capital(text: str) -> str:
    """The text with its first letter large."""
    return text[0].upper() + text[1:]


LIST_STYLES = (
    lambda entries: ", ".join(entries),
    lambda entries: _and(entries, " and "),
    lambda entries: _and(entries, ", and "),
    lambda entries: "; ".join(entries),
    lambda entries: "".join(f"\n- {entry}" for entry in entries),
    lambda entries: ", ".join(f"{'abcdefgh'[i]} {entry}" for i, entry in enumerate(entries)),
    lambda entries: " ".join(f"{i + 1}) {entry}" for i, entry in enumerate(entries)),
)
HELD_OUT_LIST_STYLES = (
    lambda entries: " / ".join(entries),
    lambda entries: _and(entries, " plus "),
    lambda entries: "".join(f"\n* {entry}" for entry in entries),
)


def _and(entries: list[str], link: str) -> str:
    return ", ".join(entries[:-1]) + link + entries[-1] if len(entries) > 1 else entries[0]


def listed(rng: random.Random, entries: list[str], held_out: bool = False) -> str:
    """A list in one of several styles; a single entry as it is."""
    if len(entries) == 1:
        return entries[0]
    return rng.choice(HELD_OUT_LIST_STYLES if held_out else LIST_STYLES)(entries)
