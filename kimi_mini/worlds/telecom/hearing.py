"""What the user hears in an answer: the steps that he is asked to take now.

An answer also names steps that nobody asks for: one that he must not take, one that did not help, one that comes later
if this one does not help. He takes none of these. A clause decides what is meant by a step that stands in it.
"""

from __future__ import annotations

import re

NO_NAME = (
    r"to|is|are|was|has|of|on|in|at|for|and|or|but|not|now|the|an?|it|this|that|your|set|right|correct|wrong"
    r"|names?|values?|settings?|fields?|should|must|needs|ought|be|did|didn|does|comes|next|will|would"
)
BETWEEN = r"(?: name| value| settings?)?(?: should| must| has to| needs to)?(?: be)?(?: set)?(?: to| is)?:?"
ACTIONS = {  # what the user understands
    "restart": re.compile(r"restart|reboot|off and on"),
    "airplane": re.compile(r"(?:airplane|flight) mode"),
    "apn": re.compile(rf"\bapn{BETWEEN} [\"'`*]*(?!(?:{NO_NAME})\b)(\w+)"),
}
UNASKED = re.compile(  # before a step that is told not to be done; "do not forget to restart" asks for one
    r"(?:\b(?:not|never|without|instead of|rather than|no need to)|n['\u2019]?t)"
    r"(?: (?!forget|hesitate|fail|only)\w+){0,2} $"
)
SENTENCES = re.compile(r"[.!?\n]")
CLAUSES = re.compile(
    r"[.!?\n,;]|: | [-\u2013\u2014] |\b(?:but|please|therefore|instead(?! of)|let us|let's|if|unless)\b"
    r"|\b(?:could|can|would) you\b|\bso\b(?! that)|\bnow\b(?! that)"
)
NOT = r"(?: not|n['\u2019]?t)"
PAST_BEFORE = re.compile(  # a step: it was taken already
    r"\b(?:since|sorry|already|thanks?|although|though|now that|after (?:the|your|that|this))\b"
    r"|(?<!have you )\btried\b"
    r"|\b(?:you|we|i)(?:['\u2019]ve| have| had) (?:\w+ )?"
    r"(?:turned|switched|set|done|entered|checked|re(?:start|boot)ed)"
    r"|(?<!have )\b(?:you|we|i) re(?:start|boot)ed"
)
PAST_AFTER = re.compile(  # up to another thing that may have failed
    r"^(?:(?!\b(?:that|which|as|because|since|while|until|whether)\b).)*?"
    r"(?:\b(?:already|failed|in vain|without success|(?:did|done|changed) nothing|no (?:use|help|luck|effect))\b"
    rf"|\b(?:did|does|has|have|had|was|were|is|could){NOT} (?:\w+ ){{0,2}}"
    r"(?:help|work|fix|chang|do|solv|bring|mend|enough|successful|the (?:cause|reason|problem)))"
)
LATER_BEFORE = re.compile(r"\bnext (?:\w+ )?(?:comes?|would|will|could|may|might)\b|\b(?:later|otherwise)\b")
LATER_AFTER = re.compile(
    r"^(?:(?!\band\b).)*?\b(?:(?:comes?|goes|is|are|be|follows?) (?:\w+ )?(?:next|afterwards)|later|follows)\b"
)
CONDITION = re.compile(  # that this step does not help, or what happens otherwise
    r"(?:\b(?:if|in case|when)\b|(?:^|[,;])\s*should\b).*(?:\b(?:not|no|nothing|still|fails?)\b|n['\u2019]?t\b)"
    r"|\b(?:unless|otherwise)\b"
)


def asked_for(answer: str) -> dict[str, re.Match]:
    """The steps that an answer (in small letters) asks for, in its order: each with the place where it does so."""
    hits = [(name, hit) for name, step in ACTIONS.items() for hit in step.finditer(answer)]
    asked: dict[str, re.Match] = {}
    for name, hit in sorted(hits, key=lambda found: found[1].start()):
        if name not in asked and _meant(answer, hit) and not (asked and _on_condition(answer, hit)):
            asked[name] = hit
    return asked


def _meant(answer: str, hit: re.Match) -> bool:
    """Whether the clause around a step wants it done now."""
    before, after = _around(answer, hit, CLAUSES)
    if UNASKED.search(before):
        return False
    word = answer[hit.start() : hit.end()] + re.match(r"\w*", after)[0]  # "restarted" is no "restart"
    told = PAST_BEFORE.search(before + word) or PAST_AFTER.search(after)
    later = LATER_BEFORE.search(before) or LATER_AFTER.search(after)
    return not (told or later or CONDITION.search(_condition_of(answer, hit, before) + after))


def _condition_of(answer: str, hit: re.Match, before: str) -> str:
    """The beginning of the clause, with the "if" that it was cut off behind."""
    start = hit.start() - len(before)
    return (re.search(r"\b(?:if|unless)$", answer[:start]) or [""])[0] + before


def _on_condition(answer: str, hit: re.Match) -> bool:
    """Whether the sentence around a step says that it is for when another does not help."""
    before, after = _around(answer, hit, SENTENCES)
    return bool(CONDITION.search(before) or CONDITION.search(after))


def _around(answer: str, hit: re.Match, ends: re.Pattern) -> tuple[str, str]:
    """What stands before a place and behind it, up to the nearest ends."""
    start = max((end.end() for end in ends.finditer(answer, 0, hit.start())), default=0)
    close = ends.search(answer, hit.end())
    return answer[start : hit.start()], answer[hit.end() : close.start() if close else len(answer)]
