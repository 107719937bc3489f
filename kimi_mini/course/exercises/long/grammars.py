"""The checker for a grammar of paraphrases (notebook 05): many wordings, one task.

The expert of world `desk` goes by the plan of a task and would work alike under any words. Here a clerk reads the plan
from the wording, by the cues of plain English, and the expert goes by that. Its work comes before the desk's verifier,
which knows the task: a wording that asks for something else leads to other work, and is refused.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, count

from kimi_mini.agent.conversation import opening
from kimi_mini.agent.loop import converse
from kimi_mini.agent.policy import Script
from kimi_mini.course.exercises.base import Checked, Hint, checker
from kimi_mini.worlds.base import Task
from kimi_mini.worlds.desk.domains import TRAINED
from kimi_mini.worlds.desk.evolution import tools_of
from kimi_mini.worlds.desk.language.frames import FRAMES, HELD_OUT_FRAMES, expanded
from kimi_mini.worlds.desk.language.wordings import capital
from kimi_mini.worlds.desk.play import clerk as play
from kimi_mini.worlds.desk.surface import assembled, named
from kimi_mini.worlds.desk.tasks import Words, draft

READ = {"ask": 2, "branch": 1, "copy": 1}  # the patterns that the clerk can read, and the size of their tasks
LEAST, MOST = 12, 200  # wordings
ORDERS = 2  # of the slots among them
RUN = 4  # words in a row that no held-out frame may share
TASKS = 3  # that each of them words

# -- a clerk who reads ---------------------------------------------------------------------------------------------

CUES = (  # of `copy`, with @ for a name and # for the number's word: how much they say that it is @ who gives
    (2, r"(from|as|as in|out of|that of|the one of|what|see at|under|by|with|like|source|origin)( is)?:? @"),
    (2, r"(to|with|by|using|as|into) (the )?(same )?# (of|in|at|from) @"),
    (2, r"(that|which|what|as) @ (has|shows|holds)"),
    (2, r"(?<=match )@|(?<=matched )@|(?<=matches )@|equal to @|same as @"),
    (2, r"trust @"),
    (1, r"\b(of|at) @|@ has the right|@ shows"),
    (-2, r"\b(to|into|onto|for|give|let|target|target is:?|(belongs|goes) at|(?<!as )in|want|need) @"),
    (-2, r"@ (gets|needs|must|should|takes|receives|has to|is to|to have|match)"),
    (-2, r"(set|change|make|align|overwrite|replace|update) (the )?# (of|in|at) @"),
    (-2, r"overwrite (the one|that) (of|in|at) @|also right for @"),
    (-4, r"(align|bring|replace|overwrite)( what)? @|(so|sure|ensure|see to it) that @"),
    # words of deed and of office
    (3, r"(what|whatever|as)( it| #)?( is| was| stands| you see)( \w+){0,2} (for|at|in|on|against|beside) @"),
    (3, r"like it does (for|at|in|on) @|whatever @|identical (to|with)( that)?( \w+ for)? @|corresponds? to @"),
    (3, r"(leave|treat) @|(?<!rest of )@ (stays|remains|leads|shall stay)"),
    (3, r"@(,? which)? is( the)? (good|right|correct|model|master|reference|teacher)"),
    (3, r"(master|benchmark|standard|giver|donor|reference|read side)( \w+ #)?( is)?:? @|from (its|the) \w+ @"),
    (3, r"@ as( the)? (model|sender|source|teacher|donor)|@ (lends|donates|passes|shares|dictates)|(entry|in) for @"),
    (3, r"(belonging|pertaining) to @|(valid|attested|certified|use|filed|found) (for|at|beside) @"),
    (3, r"whichever # @|standing in @|assigns to @"),
    (1, r"(look at|can you see|consultation of) @"),
    (-3, r"(edit|fix|repair|update|amend|correct|alter|adjust|change|fill|assign)( only| record| entry)? @"),
    (-3, r"@ (yields|gives way|follows|adopts|copies|inherits|be (updated|corrected|told)|is wrong)"),
    (-3, r"@ (say|copy|follow|shall (?!stay)|as( the)? (recipient|receiver|student|target))"),
    (-3, r"(adoption|acceptance) by @|upon @|old # of @|be on @"),
    (-3, r"(destination|recipient|receiver|replica|follower|student|writt?en? side)( is)?:? @|given for @ is out"),
    (-4, r"(shares?|lends?) (the |its )?# with @|over (the one|that) (of|in|at) @|# (for|of) @ is out of date"),
    (-4, r"(?:^|[.,;:] |and |then |please |to |you )(store|enter|put|note|write|record|paste)"
         r"( it| that| this| them| result| # of @)?( down| over| exactly this| this value down)? "
         r"(at|under|on|for|over) @"),
    (-4, r"(be|want|wanted|is to be) (it )?(stored|recorded|entered|noted|put) (at|under|on|for|against) @"),
    (-5, r"(entered|noted) as the # of @|to the # belonging to @|rule @|overwrite with it what is kept at @"),
)  # fmt: skip
ONE = r"lowest|least|smallest|cheapest|highest|greatest|largest|(?<!at )most(?! of all)|(?<!to )sum|total|together|"
ONE += r"average|altogether|add up|added up|difference|how many"
LIMITS = (  # of `branch`: how a wording may say its limit, and when the deed beside it is to be done
    ("more", r"(not|no|never|anything but) (below|under|less|lower|smaller)"),
    (
        "at most",
        r"at most|up to|or (less|below|under|fewer|lower)|<=|"
        r"(no|not|never) (more|greater|higher|above|over|beyond|exceed)",
    ),
    (
        "less",
        r"below|under|beneath|(less|lower|smaller|fewer)( word)? than|inferior to|(is|has) less( than)?|short of|<|"
        r"not (reach|attain)\w*|limit too (high|much|large)|not yet limit",
    ),
    (
        "more",
        r"(limit|it)( of word)? (or|and) (even )?(more|above|over|higher|greater|beyond)|at least|from limit|>=|"
        r"limit (hit )?or exceeds?|reach\w*|attain\w*",
    ),
    ("above", r"above|over limit|beyond|(more|greater|higher)( word)? than|exceed\w*|>"),
)
EXCEPT = (
    r"\b(unless|except\w*|exception|special case|however|but (not )?(if|when|where|with|should|in case))\b"
)
NOT = r"(?<!or )(?<!but )\b(not|no|never)\b"  # `or not` and `but not` deny nothing of their own
MIRRORED = {  # what it says when the limit stands before it and the number behind it
    "more": "at most",
    "at most": "more",
    "less": "above",
    "above": "less",
}
DENIED = {"less": "more", "more": "less", "at most": "above", "above": "at most"}  # and when it is denied
ASIDE = {  # what the clerk does not follow, and will not guess at
    "ask": r"\b(delete|remove|erase|double|twice|half|swap|exchange|raise|increase|reduce)\b",
    "copy": r"\b(not|never|nothing|twice|double|half|delete|remove|tell me|"
    r"add|plus|minus|subtract|swap|exchange|compare|sum|average)\b",
    "branch": r"\b(half|twice|double|do not|in any case|also)\b",
}


def giver(frame: str) -> str | None:
    """Which slot of a wording of `copy` gives its number, "a" or "b"; None if the words do not tell."""
    names = re.findall(r"\{([ab])\}", frame)
    text = re.sub(r"\{[ab]\}", "@", frame.replace("{word}", "#")).lower()
    places = [match.start() for match in re.finditer("@", text)]
    scores = {"a": 0, "b": 0}
    for worth, cue in CUES:
        for match in re.finditer(cue, text):
            scores[names[places.index(text.index("@", match.start()))]] += worth
    return None if scores["a"] == scores["b"] else max(scores, key=scores.get)


def condition(frame: str) -> str | None:
    """How a wording of `branch` says its limit first: less, at most, more (or as much), above; None if not at all."""
    text = re.sub(r"\{(\w+)\}", r"\1", re.sub(r"\{(then|other)\}", "@", frame)).lower()
    found = [
        (match.start(), rank, says, match.end())
        for rank, (says, cue) in enumerate(LIMITS)
        if (match := re.search(cue, text))
    ]
    if not found:
        return None
    start, _, says, end = min(found)
    turned = re.search(r"\blimit( \w+){0,2} $", text[:start]) and re.match(
        r"( than)?( the| its| what| whatever)? (word|a)\b", text[end:]
    )
    says = MIRRORED[says] if turned else says
    deed = text.index("@")  # the first of the two
    denials = (
        re.search(NOT + r"( \w+){0,2} $", text[:start]),
        re.search(EXCEPT, text[deed:start]) or re.search(r"\bunless\b", text[:start]),
        re.search(NOT, text[end:deed]),
    )
    return DENIED[says] if sum(map(bool, denials)) % 2 else says


def as_read(pattern: str, frame: str, task: Task) -> Task:
    """The task as the clerk understands it. Raises Hint when the wording does not tell."""
    steps, data = dict(task.data["steps"]), task.data
    if pattern in ASIDE and (found := re.search(ASIDE[pattern], frame.lower())):
        raise Hint(
            f"{frame!r}: the clerk is unsure of {found[0]!r}; say it without a negation or a second deed"
        )
    if pattern == "ask" and re.search(rf"\b({ONE})\b", frame.lower()):  # one answer for all of the list
        data = data | {"pattern": "least"}
    if pattern == "copy":
        if (gives := giver(frame)) is None:
            raise Hint(
                f"{frame!r}: who gives and who gets? Words such as `from`, `as`, `that of`, `to`, `into` tell"
            )
        steps["a"], steps["b"] = (steps["a"], steps["b"]) if gives == "a" else (steps["b"], steps["a"])
    if pattern == "branch":
        if (says := condition(frame)) is None:
            raise Hint(f"{frame!r}: when is which to be done? Say `below`, `under` or `less than` the limit")
        steps["limit"] += says in ("at most", "above")
        low = says in ("less", "at most")  # the deed that is named first is for low numbers
        steps["choices"] = steps["choices"][
            :: 1 if low == (frame.index("{then}") < frame.index("{other}")) else -1
        ]
    return replace(task, data=data | {"steps": steps})


# -- tasks to be worded --------------------------------------------------------------------------------------------


def _plans(pattern: str) -> list[tuple]:
    """Domains and drafts of that many tasks; of `branch`: with a number below the limit, at it and above it."""
    found: dict[int, tuple] = {}
    for seed in count():
        rng = random.Random(f"grammar/{pattern}/{seed}")
        domain = rng.choice(TRAINED)
        made, _ = draft(rng, pattern, domain, READ[pattern], Words(names=True))
        side = len(found)
        if pattern == "branch":
            number = made.records[made.steps["asked"]][made.steps["word"]]
            side = (number > made.steps["limit"]) - (number < made.steps["limit"])
        found.setdefault(side, (domain, made))
        if len(found) == TASKS:
            return list(found.values())


def _worded(pattern: str, frame: str, domain, made) -> Task:
    text = capital(frame.format(thing=domain.thing, things=domain.plural, **made.slots))
    rng = random.Random(text)
    about = {"pattern": pattern, "domain": domain.name, "outcome": "done", "gone": None, "form": "{value}"}
    return assembled(
        pattern, READ[pattern], made, text, named(rng, tools_of(domain, rng)), None, ({}, {}), about
    )


def _try_work(pattern: str, frame: str, plans: list[tuple]) -> None:
    """Raises Hint when the work of who goes by this wording is refused."""
    for domain, made in plans:
        task = _worded(pattern, frame, domain, made)
        read, conversation = as_read(pattern, frame, task), opening(task)
        converse(Script(lambda c, read=read: play.expert(read, random.Random(0))), [conversation])
        verdict = conversation.verdict()
        conversation.environment.close()
        if not verdict.passed:
            raise Hint(
                f"{frame!r} changes the task. On the work of who reads {task.prompt!r} "
                f"the verifier says: {verdict.evidence}"
            )


# -- the checker ---------------------------------------------------------------------------------------------------


def _bare(frame: str) -> tuple[str, ...]:
    """A frame without case and marks."""
    return tuple(re.sub(r"[^a-z{} ]", "", frame.lower()).split())


def _runs(frames: Iterable[str]) -> set[tuple[str, ...]]:
    """All runs of words; slots are left out, and words on both sides of one are neighbours."""
    spoken = [re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", frame.lower())) for frame in frames]
    return {tuple(said[i : i + RUN]) for said in spoken for i in range(len(said) - RUN + 1)}


def _check_slots(pattern: str, frame: str) -> None:
    """Raises Hint when a slot is missing or unknown, or an apostrophe could be the mark of a name."""
    optional = {"thing", "things"}
    wanted = set(re.findall(r"\{(\w+)\}", FRAMES[pattern][0])) - optional
    slots = re.findall(r"\{(\w+)\}", frame)
    if set("{}") & set(re.sub(r"\{\w+\}", "", frame)):
        raise Hint(f"{frame!r}: a slot is a word between braces, such as {{word}}")
    if missing := sorted(wanted - set(slots)):
        raise Hint(f"{frame!r} leaves out {{{missing[0]}}}: nobody can do what is not said")
    if more := sorted(set(slots) - wanted - optional):
        raise Hint(
            f"{frame!r}: {{{more[0]}}} is no slot of `{pattern}`; there are {', '.join(sorted(wanted))}"
        )
    if "'" in frame or '"' in frame:
        raise Hint(f"{frame!r}: an apostrophe or a quote could be the mark of a name; say it without")


def _check_held_out(frames: Iterable[str]) -> None:
    """Raises Hint for a wording that the exam of the scoreboard asks, or comes too near."""
    exam = list(chain(*HELD_OUT_FRAMES.values()))
    bare, runs = set(map(_bare, exam)), _runs(exam)
    for frame in frames:
        if _bare(frame) in bare:
            raise Hint(f"{frame!r} is held out: trained on, it would make the scoreboard a test of memory")
        if shared := _runs([frame]) & runs:
            raise Hint(f"{frame!r} shares {' '.join(min(shared))!r} with a held-out wording: a leak")


@checker
def check_grammar(grammar: str, pattern: str = "copy") -> Checked:
    """grammar: templates on lines, [this|that] for alternatives, slots in braces: wordings of tasks of that pattern."""
    if not isinstance(grammar, str) or not grammar.strip():
        raise Hint('begin with """The {word} of {a} [goes|belongs] ... {b} ...""", a template a line')
    if pattern not in READ:
        raise Hint(f"the clerk reads {', '.join(READ)}, not {pattern!r:.40}")
    if re.search(r"\[[^\]]*\[|\][^\[]*\]", f"]{grammar}[") or any(
        line.count("[") != line.count("]") for line in grammar.splitlines()
    ):
        raise Hint("every [ needs its ] on the same line, and none stands inside another")
    frames = list(dict.fromkeys(expanded(grammar)))
    for frame in frames:
        _check_slots(pattern, frame)
    _check_held_out(frames)
    own = {_bare(frame) for frame in frames} - set(map(_bare, FRAMES[pattern]))
    if len(own) < LEAST:
        raise Hint(
            f"{len(own)} wordings that the package has not yet, where {LEAST} are wanted: use [this|that]"
        )
    if len(frames) > MOST:
        raise Hint(f"{len(frames):,} wordings: {MOST} are plenty to be tried")
    orders = {tuple(re.findall(r"\{(\w+)\}", frame)) for frame in frames}
    if len(orders) < ORDERS:
        raise Hint(
            "the slots always stand in the same order: a model would learn their places, and not the words"
        )
    plans = _plans(pattern)
    for frame in frames:
        _try_work(pattern, frame, plans)
    return Checked(
        True,
        f"{len(own)} new wordings; {len(frames) * TASKS} tasks, and the verifier passes the work on each",
    )
