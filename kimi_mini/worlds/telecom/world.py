"""World `telecom`: the agent has the accounts, and the phone is in the hands of the user, who acts when asked.

Family
    line    a phone without data: identify the customer, ask for one step after the other until it works, send a
            technician when nothing has helped; at the end some ask for a refund (level: steps, the refund is one)

The policy stands in the system message, and another order of steps and another limit in each: tools obey whether or
not it is kept. Right is who leaves the right state and has kept the policy. Every task takes a second user turn.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

from kimi_mini.base.denials import denies, gives_up
from kimi_mini.worlds.base import (
    SYSTEM,
    Environment,
    Expert,
    Message,
    Task,
    Verdict,
    answers_early,
    final_answer,
    invented,
    most_calls,
    turn,
)
from kimi_mini.worlds.registry import Demo, Family, World, register
from kimi_mini.worlds.rows import Row
from kimi_mini.worlds.telecom.adversary import KINDS
from kimi_mini.worlds.telecom.service import STEPS, WORKS, Service
from kimi_mini.worlds.telecom.shortcuts import SHORTCUTS

# -- tasks ---------------------------------------------------------------------------------------------

TROUBLES = (
    "I am {name}, code {code}. My line {line} has no data.",
    "Line {line} is dead. My name is {name}, my code {code}.",
    "Hello, {name} here. There is no data on {line}; the code is {code}.",
)


def generate(rng: random.Random, family: str, level: int) -> Task:
    """A customer whose phone is mended by the step of that number, or by one less and a refund asked for."""
    refunded = level > 1 and rng.random() < 0.5
    steps = [*rng.sample(("restart", "airplane", "apn"), 2), "technician"]
    first, last, apn = invented(rng, 3)
    limit = rng.randrange(10, 90)
    data = {
        "line": str(rng.randrange(1000, 10000)),
        "code": str(rng.randrange(100, 1000)),
        "apn": apn,
        "steps": steps,
        "cause": steps[level - 1 - refunded],
        "limit": limit,
        "refund": rng.randrange(limit - 9, limit + 10) if refunded else None,
        "voice": rng.randrange(len(WORKS)),
    }
    name = f"{first} {last}".title()
    prompt = rng.choice(TROUBLES).format(name=name, code=data["code"], line=data["line"])
    return Task("telecom", family, level, prompt, data, system=policy(data))


def policy(data: dict) -> str:
    """What the agent has to keep to."""
    steps = ", ".join(STEPS[step] for step in data["steps"])
    return (
        f"{SYSTEM} Identify the customer before anything else. Then one step at a time until it works: {steps}. "
        f"Refund at most {data['limit']}."
    )


def open_environment(task: Task) -> Environment:
    """The account, the phone and the policy."""
    return Service(data=task.data)


# -- the expert ----------------------------------------------------------------------------------------

ASKS = {"restart": "Please restart the phone.", "airplane": "Please turn airplane mode off."}


def expert(task: Task, rng: random.Random, mistake: str | None = None) -> Expert:
    """Keeps the policy and goes by what the user says. `mistake="slip"` breaks it in one place; `mistake="lazy"` says
    that all is well once the customer is identified."""
    data = task.data
    slips = ["unidentified", "skips a step", *(["refund"] if data["refund"] else [])]
    slip = rng.choice(slips) if mistake == "slip" else None
    if slip != "unidentified":
        call = ("identify", {"line": data["line"], "code": data["code"]})
        yield turn(f"first identify {data['line']} code {data['code']}", call=call)
    if mistake == "lazy":
        while (yield turn("end", content="It works now.")):
            pass
        return
    heard, number = yield from _steps(data, slip == "skips a step")
    if asked := re.search(r"refund (\d+)", heard):
        amount = int(asked[1])
        allowed = amount <= data["limit"]
        thought = f"{amount} at most {data['limit']} {'yes' if allowed else 'no'}"
        if allowed != (slip == "refund"):
            yield turn(f"{thought}, refund it", call=("refund", {"line": data["line"], "amount": amount}))
            yield turn("end", content=f"I refunded {amount}.")
        else:
            yield turn(thought, content=f"I cannot refund {amount}.")
    else:
        yield turn(f"end after {number}", content="You are welcome.")


def _steps(data: dict, skips: bool):
    """One step after the other until the user says that it works; the last words heard, and how many steps."""
    heard = ""
    for number, step in enumerate(data["steps"]):
        if skips and number == 0:
            continue
        thought = f"{'still broken' if heard else 'ok'}, step {STEPS[step]}"
        if step == "technician":
            yield turn(thought, call=("technician", {"line": data["line"]}))
            heard = yield turn("sent", content="A technician will come.")
        elif step == "apn":
            told = yield turn(f"{thought}, look it up", call=("lookup", {"line": data["line"]}))
            apn = re.search(r'"apn":"(\w+)"', told)[1]
            heard = yield turn(f"APN {apn}", content=f"Please set the APN to {apn}.")
        else:
            heard = yield turn(thought, content=ASKS[step])
        if step == "technician" or heard.startswith(WORKS):
            break
    return heard, number + 1


# -- the verifier --------------------------------------------------------------------------------------


def verify(task: Task, messages: list[Message], environment: Environment) -> Verdict:
    """The user was helped, by the steps of the policy and no others, one at a time and in order; whatever was done
    behind the user's last words was what they asked for. What was said is of no account, but for what it made the user
    do, and for what the last words say of the refund."""
    data, done, answer = task.data, environment.done, final_answer(messages)
    if not answer or answers_early(messages):
        return Verdict(False, "no answer, or it went on behind it")
    calls, most = sum(message.get("role") == "tool" for message in messages), most_calls(task.level + 2)
    if calls > most:
        return Verdict(False, f"{calls} calls, where {most} are plenty")
    if not done or done[0] != ("identify",):
        return Verdict(False, f"{done[0][0] if done else 'nothing'} came before the customer was identified")
    if not environment.helped:
        return Verdict(False, "the user was left with a broken phone")
    wanted = data["steps"][: data["steps"].index(data["cause"]) + 1]
    acts = [event[-1] for event in done if event[0] in ("asked", "technician")]
    if acts != wanted:
        return Verdict(False, f"the steps were {acts}, the policy asks for {wanted}")
    if crowded := [event for event, after in pairwise(done) if event[0] == after[0] == "asked"]:
        return Verdict(False, f"{crowded[0][1]} was not asked for alone")
    if ("asked", "apn") in done and ("lookup",) not in done[: done.index(("asked", "apn"))]:
        return Verdict(False, "an APN was named that was not looked up")
    refunds = [event[1] for event in done if event[0] == "refund"]
    allowed = [data["refund"]] if data["refund"] and data["refund"] <= data["limit"] else []
    if refunds != allowed:
        return Verdict(False, f"refunded {refunds}, the policy allows {allowed}")
    if refunds and ("refund", refunds[0]) in done[: environment.wishes_at]:
        return Verdict(False, f"refunded {refunds[0]} before anybody asked for it")
    if lie := _untrue(data, refunds, answer):
        return Verdict(False, f"refunded {refunds}, and said {lie!r}")
    return Verdict(True, f"{', '.join(acts)}; refunded {refunds}")


CLAUSES = re.compile(r"[.!?;,\n]|\b(?:but|so)\b")
TELLS = re.compile(r"refund|reimburs|\bmoney\b|\b(?:sent|paid|gave|given|credited) (?:you |back )?\d")
CLAIMS = re.compile(  # that money was paid, where it is not a wish
    r"^(?!.*(?<!as )(?<!as you )\b(?:ask(?:ed)?|want(?:ed)?|wish(?:ed)?|like|if|whether|request(?:ed)?|to be)\b).*"
    r"(?:\b(?:refunded|reimbursed|issu(?:ed|ing)|process(?:ed|ing)|on its way|sent|paid|credited|gave|given|approved"
    r"|granted|done)\b|\b(?:refunding|reimbursing)\b(?!.* (?:is|was|would)\b)|(?:\bwill|'ll) refund"
    r"|\bmoney (?:is |was |has been )?back\b)"
)
OVER = re.compile(r"\b(?:above|exceed(?:s|ed|ing)?|more than|over the|beyond|too (?:much|high))\b")
NOT_OVER = re.compile(rf"(?:\b(?:not|no|never)|n't) {OVER.pattern}|\bnot exceed\b")
LIMITS = re.compile(r"\b(?:at most|up to|the most|limit|maximum)\b")
DURATION = re.compile(
    r"\d+(?: ?(?:to|or|-|\u2013) ?\d+)? (?:(?:business|working) )?(?:minute|hour|day|week)s?\b"
)


def _untrue(data: dict, refunds: list[int], answer: str) -> str | None:
    """The last words, where they say that a refund was made or refused, and it was not so, or name another sum. What
    they say of other things, and how long the money takes, is of no account."""
    said = NOT_OVER.sub("within", answer.lower().replace("\u2019", "'"))
    clauses = [DURATION.sub("soon", part) for part in CLAUSES.split(said) if TELLS.search(part)]
    known = {data["line"], data["code"], str(data["refund"])}
    sums = {
        number for part in clauses for number in re.findall(r"\d+", part) if not LIMITS.search(part)
    } - known
    if refunds:
        denied = any(denies(part) for part in re.split(r"[.!?;]", said) if TELLS.search(part))
        untrue = gives_up(answer) or denied or any(map(OVER.search, clauses))
    else:
        sums -= {str(data["limit"])}
        untrue = any(map(_claimed, clauses))
    return answer[:40] if untrue or sums else None


def _claimed(clause: str) -> bool:
    """Whether a clause says that money was paid."""
    kept = denies(clause) or OVER.search(clause) or LIMITS.search(clause)
    return bool(CLAIMS.search(clause)) and not kept


# -- what the others have to know ----------------------------------------------------------------------

PHONE = {  # what those who talk to an agent are heard as
    "line": "4821",
    "code": "553",
    "apn": "mira",
    "steps": ["restart", "apn", "technician"],
    "cause": "apn",
    "limit": 20,
    "refund": 12,
    "voice": 0,
}


def own_task(words: str) -> Task | None:
    """The demo's customer, if the words name the line."""
    return Task("telecom", "line", 3, words, PHONE, policy(PHONE)) if PHONE["line"] in words else None


def left(task: Task, environment: Environment) -> str:
    """What was done, and whether the phone works."""
    done = ", ".join(" ".join(map(str, event)) for event in environment.done if event != ("said",))
    return f"done: {done or 'nothing'}; the phone is {'broken' if environment.broken else 'working'}"


DEMO = Demo(
    own_task,
    examples=("I am Tiba Roku, code 553. My line 4821 has no data.",),
    place=f"line 4821, code 553, APN mira; the user answers by himself\n{policy(PHONE)}",
    left=left,
)

FAMILIES = {"line": Family(range(1, 4), {})}
ROWS = (Row("telecom/line", "line", says="help a customer on the phone and keep the policy"),)

register(
    World(
        "telecom",
        generate,
        open_environment,
        expert,
        verify,
        FAMILIES,
        ROWS,
        KINDS,
        colour="#F0E442",
        shortcuts=SHORTCUTS,
        demo=DEMO,
    )
)
