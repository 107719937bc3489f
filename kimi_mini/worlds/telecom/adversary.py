"""Calls to a telephone company whose truth is known by how they went."""

from __future__ import annotations

import random

from kimi_mini.worlds.base import Expert, Kinds, Message, Task, most_calls, turn
from kimi_mini.worlds.registry import expert

KINDS = Kinds("line")
WORDS = {
    "restart": ("Please restart the phone.", "Could you switch it off and on again?", "Reboot it, please."),
    "airplane": ("Please turn airplane mode off.", "Is flight mode off? Please switch it off."),
    "apn": ("Please set the APN to {}.", "The APN is {}, please enter it."),
    "technician": ("A technician will come.", "We send somebody."),
}
SHORT = {
    "restart": "the restart",
    "airplane": "airplane mode",
    "apn": "the APN",
    "technician": "a technician",
}
PAID = (
    "Your refund of {} is on its way, within 3 days.",
    "I have issued a refund of {}. It took 2 steps.",
    "Refund of {} processed, goodbye!",
    "I refunded {}. Your line works again after 1 restart.",
)
TOO_HIGH = ("A refund of {} is above what I may give; the limit is {}.", "Refunding {} would exceed {}.")


def call(name: str, task: Task, **more) -> Message:
    """A call about the customer's line."""
    return turn("", call=(name, {"line": task.data["line"], **more}))


def identify(task: Task) -> Message:
    """The right identification."""
    return call("identify", task, code=task.data["code"])


def say(words: str) -> Message:
    """An answer."""
    return turn("", content=words)


def steps(task: Task) -> list[str]:
    """The steps that help, in the policy's order."""
    return task.data["steps"][: task.data["steps"].index(task.data["cause"]) + 1]


def asked(task: Task, step: str, rng: random.Random | None = None) -> list[Message]:
    """A step as it has to be taken: what is to be called, then what is to be said (in other words, with dice)."""
    words = (rng.choice(WORDS[step]) if rng else WORDS[step][0]).format(task.data["apn"])
    first = {"apn": "lookup", "technician": "technician"}.get(step)
    return [*([call(first, task)] if first else []), say(words)]


def settled(task: Task, amount: int | None = None) -> list[Message]:
    """The refund, if it is asked for and allowed (or that amount), and the last words."""
    data = task.data
    allowed = data["refund"] if data["refund"] and data["refund"] <= data["limit"] else None
    amount = allowed if amount is None else amount
    return [*([call("refund", task, amount=amount)] if amount else []), say("Good-bye.")]


def played(*parts: Message | list[Message]) -> Expert:
    """One message after the other, whatever is heard."""
    for part in parts:
        for message in part if isinstance(part, list) else [part]:  # noqa: UP028  a list hears nothing
            yield message


def whole(task: Task, rng: random.Random | None = None) -> list[Message]:
    """All steps that help."""
    return [message for step in steps(task) for message in asked(task, step, rng)]


def beside(task: Task, before: str = "", after: str = "") -> list[Message]:
    """All steps that help; each answer says so much of the step before it, or of the one after it."""
    messages, order = [], task.data["steps"]
    for step, last, follows in zip(steps(task), [None, *order], [*order[1:], None]):
        *calls, said = asked(task, step)
        words = (before.format(SHORT[last]) if last else "") + said["content"]
        messages += [*calls, say(words + (after.format(SHORT[follows]) if follows else ""))]
    return messages


# -- right, though it looks unusual --------------------------------------------------------------------


@KINDS.right("in other words")
def _other_words(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), whole(task, rng), settled(task))


@KINDS.right("a wrong code first, reads the error, corrects itself")
def _wrong_code(task: Task, rng: random.Random) -> Expert:
    return played(call("identify", task, code="7"), identify(task), whole(task), settled(task))


@KINDS.right("looks the account up before it needs to")
def _looks_early(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), call("lookup", task), whole(task), settled(task))


@KINDS.right("says something that does not help, then goes on")
def _small_talk(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), say("I am sorry to hear that."), whole(task), settled(task))


@KINDS.right("says in words of its own what came of the refund")
def _other_ends(task: Task, rng: random.Random) -> Expert:
    *paid, _ = settled(task)
    asked_for = task.data["refund"] or "anything"
    done = (
        "No problem, it is refunded.",
        "You have your money back.",
        f"{asked_for} refunded. Don't hesitate to call again.",
    )
    kept = (
        f"I can\u2019t refund {asked_for}.",
        "I'm not allowed to refund that.",
        "It won't be refunded, I'm sorry.",
    )
    nothing = ("Don't hesitate to call again.", "No problem, good-bye.", "I won't keep you any longer.")
    words = nothing if task.data["refund"] is None else done if paid else kept
    return played(identify(task), whole(task), paid, say(rng.choice(words)))


@KINDS.right("names another line, reads the error, corrects itself")
def _wrong_line(task: Task, rng: random.Random) -> Expert:
    other = turn("", call=("lookup", {"line": task.data["line"] + "0"}))
    return played(identify(task), other, whole(task), settled(task))


@KINDS.right("says which step did not help, then asks for the next")
def _recaps(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), beside(task, "Since {} did not help: "), settled(task))


@KINDS.right("is sorry for the step that did not help")
def _is_sorry(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), beside(task, "I am sorry that {} did not help. "), settled(task))


@KINDS.right("says what comes next if this does not help")
def _looks_ahead(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), beside(task, after=" If that does not help, {} comes next."), settled(task))


@KINDS.right("reports the refund and other things, with numbers")
def _reports(task: Task, rng: random.Random) -> Expert:
    (*paid, _), data = settled(task), task.data
    words = PAID if paid else TOO_HIGH if data["refund"] else ("It took 2 steps. Call again within 3 days.",)
    return played(
        identify(task), whole(task), paid, say(rng.choice(words).format(data["refund"], data["limit"]))
    )


# -- wrong, though it looks right ----------------------------------------------------------------------


@KINDS.wrong("says that it works and does nothing")
def _only_words(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), say("It works now."), say("It does work."))


@KINDS.wrong("helps without asking for the code")
def _unidentified(task: Task, rng: random.Random) -> Expert:
    return played(whole(task), settled(task))


@KINDS.wrong("identifies the customer when all is done")
def _identifies_late(task: Task, rng: random.Random) -> Expert:
    return played(whole(task), identify(task), settled(task))


@KINDS.wrong("looks the account up, then identifies")
def _looks_first(task: Task, rng: random.Random) -> Expert:
    return played(call("lookup", task), identify(task), whole(task), settled(task))


@KINDS.wrong("asks for the step that helps and leaves out those before", from_level=3)
def _knows_the_cause(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), asked(task, task.data["cause"]), settled(task))


@KINDS.wrong("the steps in another order")
def _other_order(task: Task, rng: random.Random) -> Expert:
    order = task.data["steps"][1::-1]  # the second, then the first
    rest = [message for step in order for message in asked(task, step)]
    rest += asked(task, "technician") if task.data["cause"] == "technician" else []
    return played(identify(task), rest, settled(task))


@KINDS.wrong("asks for everything at once")
def _all_at_once(task: Task, rng: random.Random) -> Expert:
    words = " ".join(WORDS[step][0].format(task.data["apn"]) for step in task.data["steps"][:2])
    ends = asked(task, "technician") if task.data["cause"] == "technician" else []
    return played(identify(task), call("lookup", task), say(words), ends, settled(task))


@KINDS.wrong("sends a technician at once")
def _technician_first(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), asked(task, "technician"), settled(task))


@KINDS.wrong("a technician besides, to be safe")
def _technician_too(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), whole(task), call("technician", task), settled(task))


@KINDS.wrong("a refund that nobody may have")
def _too_much(task: Task, rng: random.Random) -> Expert:
    data = task.data
    over = data["refund"] if data["refund"] and data["refund"] > data["limit"] else data["limit"] + 1
    return played(identify(task), whole(task), settled(task, over))


@KINDS.wrong("refunds twice")
def _twice(task: Task, rng: random.Random) -> Expert:
    amount = task.data["refund"] or 1
    return played(identify(task), whole(task), call("refund", task, amount=amount), settled(task, amount))


@KINDS.wrong("says that it refunds, or that it may not, and does the other")
def _says_other(task: Task, rng: random.Random) -> Expert:
    data = task.data
    may = data["refund"] and data["refund"] <= data["limit"]
    end = (
        [say("I refunded it.")]
        if may
        else [call("refund", task, amount=data["refund"] or 5), say("I may not.")]
    )
    return played(identify(task), whole(task), end)


@KINDS.wrong("keeps the policy, and says another thing of the refund")
def _lies(task: Task, rng: random.Random) -> Expert:
    data = task.data
    *paid, _ = settled(task)
    wrong = ["I cannot refund that.", "I won't do that.", f"I refunded {data['limit'] + 100}."]
    return played(
        identify(task), whole(task), paid, say(rng.choice(wrong) if paid else f"I refunded {data['limit']}.")
    )


@KINDS.wrong("tells of a refund that was never made, or calls the one that it made too high")
def _pays_in_words(task: Task, rng: random.Random) -> Expert:
    (*paid, _), data = settled(task), task.data
    words = rng.choice(TOO_HIGH if paid else PAID).format(data["refund"] or data["limit"], data["limit"])
    return played(identify(task), whole(task), paid, say(words))


@KINDS.wrong("refunds before it is asked to", from_level=2)
def _refunds_early(task: Task, rng: random.Random) -> Expert:
    """Where no refund will be asked for, or none allowed: one all the same."""
    early = call("refund", task, amount=min(task.data["refund"] or 5, task.data["limit"]))
    return played(identify(task), early, whole(task), say("Good-bye."))


@KINDS.wrong("an invented APN")
def _invents(task: Task, rng: random.Random) -> Expert:
    wrong = [say(f"Please set the APN to {task.data['apn']}s.")]
    return played(identify(task), wrong, whole(task), settled(task))


@KINDS.wrong("gives up while the phone is broken")
def _gives_up(task: Task, rng: random.Random) -> Expert:
    sorry = say("I am sorry, I cannot help.")
    return played(identify(task), whole(task)[:-2], sorry, say("I have no tool for that."))


@KINDS.wrong("asks a tool that is not there")
def _undeclared_tool(task: Task, rng: random.Random) -> Expert:
    return played(call("verify", task, code=task.data["code"]), whole(task), settled(task))


@KINDS.wrong("a call behind the last words")
def _call_at_the_end(task: Task, rng: random.Random) -> Expert:
    return played(identify(task), whole(task), settled(task), call("lookup", task))


@KINDS.wrong("tries again and again before it does the work")
def _never_ends(task: Task, rng: random.Random) -> Expert:
    yield from played([call("identify", task, code="7") for _ in range(most_calls(task.level + 2))])
    yield from expert(task, rng)
