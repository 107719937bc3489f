"""World `telecom`: the phone has a real state, the user says what has come of it, and the policy is kept or not."""

import random

import pytest

from kimi_mini import worlds
from kimi_mini.agent import loop
from kimi_mini.agent.conversation import opening
from kimi_mini.agent.policy import Script
from kimi_mini.evaluation.adversary import perform
from kimi_mini.worlds import WORLDS
from kimi_mini.worlds.base import turn
from kimi_mini.worlds.telecom import service, world
from kimi_mini.worlds.telecom.adversary import asked, identify, say, settled

DATA = dict(world.PHONE, refund=None)


def task_of(**changes):
    return worlds.Task("telecom", "line", 2, "no data", {**DATA, **changes})


def play(task, *messages):
    """These turns, one after the other."""

    def script(_):
        for message in messages:  # noqa: UP028  a tuple hears nothing
            yield message

    conversation = opening(task)
    loop.converse(Script(script), [conversation])
    return conversation


def heard(conversation):
    return [message["content"] for message in conversation.messages[2:] if message["role"] == "user"]


def test_the_user_acts_and_says_what_the_phone_does():
    """The step that helps is the second: not before, and not with a wrong APN."""
    task = task_of()
    steps = [say("Please restart it."), say("Set the APN to lodi."), say("Set the APN to mira."), say("Bye.")]
    assert heard(play(task, *steps)) == [world_said("STILL"), world_said("STILL"), world_said("WORKS")]
    assert heard(play(task, say("Reboot it, then set the APN to MIRA"))) == [world_said("WORKS")]
    assert heard(play(task_of(cause="restart"), say("restart, please"))) == [world_said("WORKS")]


def world_said(name):
    return getattr(service, name)[0]


def test_who_is_helped_does_nothing_more():
    """The last words may name what has helped, and are no step; a user who has hung up sets no APN."""
    last = {
        "restart": "Glad the restart fixed it. Have a nice day!",
        "airplane": "You are welcome. Airplane mode was the cause.",
        "apn": "Good, the APN is mira now. If it breaks again, restart the phone.",
    }
    for step, words in last.items():
        task = task_of(cause=step, steps=[step, "technician"])
        assert play(task, identify(task), *asked(task, step), say(words)).verdict().passed, words
    environment = world.open_environment(task_of(cause="restart"))
    environment.user_turn("restart")
    assert environment.user_turn("set the APN to lodi") is None and environment.apn is None


def test_a_user_who_is_not_helped_acts_on_every_word():
    environment = world.open_environment(task_of(cause="restart"))
    assert environment.user_turn("set the APN to lodi") == world_said("STILL")
    assert environment.user_turn("restart") == world_said("STILL") and environment.broken


@pytest.mark.parametrize(
    "words, apn",
    [
        ("Set the APN to mira.", "mira"),
        ('The APN is "mira", please enter it.', "mira"),
        ("APN: Mira", "mira"),
        ("Please set APN to: internet", "internet"),
        ("The APN should be mira.", "mira"),
        ("Please set the APN name to 'mira'.", "mira"),
        ("Your APN must be set to **mira**.", "mira"),
        ("Check the APN settings.", None),
        ("What should the APN be?", None),
        ("The APN is right.", None),
        ("The APN is now set, is it?", None),
        ("Is the APN of your account in the phone?", None),
        ("Set the APN to that of your account.", None),
    ],
)
def test_an_apn_is_a_name_and_no_common_word(words, apn):
    environment = world.open_environment(task_of())
    environment.user_turn(words)
    assert environment.apn == apn and (("asked", "apn") in environment.done) == bool(apn)


@pytest.mark.parametrize(
    "words, done",
    [
        ("Please restart the phone.", True),
        ("Do not restart the phone.", False),
        ("Please don't switch it off and on again.", False),
        ("Don\u2019t reboot it", False),
        ("Instead of a restart: turn airplane mode off.", False),
        ("Do not forget to restart it.", True),
        ("I cannot restart it from here; please restart it yourself.", True),
        ("It was not the line. Restart the phone.", True),
    ],
)
def test_a_step_that_is_told_not_to_be_done_is_not_done(words, done):
    environment = world.open_environment(task_of())
    environment.user_turn(words)
    assert (("asked", "restart") in environment.done) is done


@pytest.mark.parametrize(
    "words, done",
    [
        ("I am sorry that the restart did not help. Please turn airplane mode off.", ["airplane"]),
        ("Since airplane mode did not help please restart the phone.", ["restart"]),
        ("The restart and airplane mode didn\u2019t help. Set the APN to mira.", ["apn"]),
        ("We tried the restart. Could you set the APN to mira?", ["apn"]),
        ("You have restarted it, so set the APN to mira.", ["apn"]),
        ("You already restarted it: is flight mode off? Please switch it off.", ["airplane"]),
        ("Thank you for restarting it. Now set the APN to mira.", ["apn"]),
        ("Turn airplane mode off. If that does not help, the restart comes next.", ["airplane"]),
        ("Turn airplane mode off, and if that does not help, restart the phone.", ["airplane"]),
        ("We will restart it later. Turn airplane mode off.", ["airplane"]),
        ("If the restart did not help, turn airplane mode off.", ["airplane"]),
        ("If it still does not work, restart the phone.", ["restart"]),
        ("Next, restart the phone.", ["restart"]),
        ("Have you tried turning it off and on again?", ["restart"]),
        ("You have to restart the phone, as it does not work.", ["restart"]),
        ("Restart the phone. Please turn airplane mode off.", ["restart", "airplane"]),
    ],
)
def test_a_step_that_was_or_that_comes_later_is_not_done(words, done):
    environment = world.open_environment(task_of())
    environment.user_turn(words)
    assert [event[1] for event in environment.done if event[0] == "asked"] == done


def test_nobody_waits_for_ever():
    """Two answers without help, and the user has gone; a technician on the way is help."""
    conversation = play(task_of(), say("Hm."), say("Well."))
    assert heard(conversation) == [world_said("LOST")] and not conversation.environment.helped
    sent = play(
        task_of(), turn("", call=("technician", {"line": "4821"})), say("Somebody comes."), say("Bye.")
    )
    assert heard(sent) == [world_said("WAITS")] and sent.environment.helped


def test_tools_obey_and_know_their_line():
    call = world.open_environment(task_of()).toolbox.call
    assert call("identify", '{"line":"4821","code":"1"}').content == "error: the code does not match"
    assert call("lookup", '{"line":"1"}').content == "error: no line 1"
    assert (
        call("refund", '{"line":"4821","amount":9000}').ok
        and not call("refund", '{"line":"4821","amount":0}').ok
    )


def test_the_policy_stands_before_the_task_and_every_task_has_a_second_user_turn():
    seen = set()
    for seed in range(60):
        rng = random.Random(seed)
        conversation = loop.play(worlds.generate(rng, "line", 1 + seed % 3), rng)
        system = conversation.messages[0]["content"]
        assert system.startswith("You are Kimi. Identify") and conversation.verdict().passed
        assert len(heard(conversation)) >= 1
        seen.add(system)
    assert len(seen) > 50


def test_a_refund_is_made_up_to_the_limit_and_not_above():
    for refund, allowed in ((20, True), (21, False)):
        task = task_of(refund=refund, cause="restart", limit=20)
        paid = play(task, identify(task), *asked(task, "restart"), *settled(task, refund))
        refused = play(task, identify(task), *asked(task, "restart"), say("I may not."))
        assert (paid.verdict().passed, refused.verdict().passed) == (allowed, not allowed)
        assert "refund" in paid.verdict().evidence or allowed


def test_the_last_words_do_not_lie_about_the_refund():
    """They need not speak of it; what they say of it is true."""
    task = task_of(refund=20, cause="restart", limit=20)
    over = task_of(refund=21, cause="restart", limit=20)
    none = task_of(cause="restart", limit=20)
    paid = [identify(task), *asked(task, "restart"), *settled(task, 20)[:-1]]
    for words in (
        "I refunded 20.",
        "Bye.",
        "No problem, it is refunded.",
        "Refunded. Don't hesitate to call!",
    ):
        assert play(task, *paid, say(words)).verdict().passed, words
    for words in ("I cannot refund 20.", "I won\u2019t do that.", "I refunded 30.", "It was not refunded."):
        assert not play(task, *paid, say(words)).verdict().passed, words
    for other, true, untrue in (
        (over, "I can\u2019t refund 21.", "I refunded 21."),
        (none, "Bye.", "Refunded."),
    ):
        kept = [identify(other), *asked(other, "restart")]
        assert play(other, *kept, say(true)).verdict().passed
        assert not play(other, *kept, say(untrue)).verdict().passed


PAID = [  # true where 20 was refunded, and a lie everywhere else
    "Your refund of 20 is on its way.",
    "I have issued a refund of 20.",
    "Refund of 20 processed, goodbye!",
    "Done, the money is back on your account.",
    "I refunded 20. Your line works again after 1 restart.",
    "I've refunded 20. It will show up within 3 to 5 business days.",
    "As you asked, I refunded 20, which is not above the limit.",
]
KEPT = [  # the other way round
    "A refund of 20 is above what I may give; the limit is 15.",
    "Refunding 20 is not possible because it exceeds the maximum of 15; 5 days apply for appeals.",
    "You asked to be refunded 20, and I cannot do that.",
]


@pytest.mark.parametrize("words", PAID + KEPT)
def test_a_refund_is_paid_by_a_call_and_not_by_words(words):
    for limit, refunds, true in ((20, [20], words in PAID), (15, [], words in KEPT)):
        assert (world._untrue({**DATA, "refund": 20, "limit": limit}, refunds, words) is None) is true


def test_only_the_sum_that_was_refunded_is_reported():
    data = {**DATA, "refund": 8, "limit": 10}
    assert world._untrue(data, [8], "I refunded 10.") and world._untrue(data, [8], "I refunded 9.")
    assert not world._untrue(data, [8], "I refunded 8; up to 10 may be refunded.")
    assert not world._untrue(DATA, [], "It took 2 steps. Call again within 3 days.")


def test_a_refund_is_made_when_it_is_asked_for_and_not_before():
    task = task_of(refund=20, cause="restart", limit=20)
    pay = turn("", call=("refund", {"line": "4821", "amount": 20}))
    early = play(task, identify(task), pay, *asked(task, "restart"), say("Bye.")).verdict()
    assert not early.passed and early.evidence == "refunded 20 before anybody asked for it"
    assert play(task, identify(task), *asked(task, "restart"), pay, say("Bye.")).verdict().passed


def test_evidence_says_which_rule_was_broken():
    task = task_of()
    right = [*asked(task, "restart"), *asked(task, "apn"), say("Bye.")]
    assert play(task, identify(task), *right).verdict().passed
    cases = {
        "came before the customer was identified": [*right[:-1], identify(task), say("Bye.")],
        "the user was left with a broken phone": [identify(task), say("a"), say("b")],
        "the policy asks for": [identify(task), *asked(task, "apn"), say("Bye.")],
        "was not asked for alone": [
            identify(task),
            turn("", call=("lookup", {"line": "4821"})),
            say("Restart it, and set the APN to mira."),
            say("Bye."),
        ],
        "not looked up": [identify(task), *asked(task, "restart"), say("Set the APN to mira."), say("Bye.")],
        "refunded [5]": [
            identify(task),
            *right[:-1],
            turn("", call=("refund", {"line": "4821", "amount": 5})),
            say("Bye."),
        ],
        "are plenty": [*[identify(task)] * 11, *right],
        "no answer": [identify(task), *right[:-1]],
    }
    for evidence, messages in cases.items():
        verdict = play(task, *messages).verdict()
        assert not verdict.passed and evidence in verdict.evidence, (evidence, verdict)


def test_the_steps_have_an_order_where_none_of_them_helps_too():
    task = task_of(cause="technician")
    for order, right in ((["restart", "apn"], True), (["apn", "restart"], False)):
        messages = [message for step in [*order, "technician"] for message in asked(task, step)]
        assert play(task, identify(task), *messages, say("Bye.")).verdict().passed is right


MUTANTS = {  # a condition left out -> the kind that must get through
    "most_calls": (lambda needed: 10**6, "tries again and again before it does the work"),
    "pairwise": (lambda done: [], "asks for everything at once"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_condition_of_the_verifier_is_needed(name, monkeypatch):
    mutant, kind = MUTANTS[name]
    kind = next(found for found in WORLDS["telecom"].kinds if found.name == kind)
    made = []
    for seed in range(20):
        rng = random.Random(seed)
        made.append(perform(kind, worlds.generate(rng, "line", 2 + seed % 2), rng))
    assert not any(conversation.verdict().passed for conversation in made)
    monkeypatch.setattr(world, name, mutant)
    assert any(conversation.verdict().passed for conversation in made)


def test_the_demo_names_the_line():
    task = world.own_task(world.DEMO.examples[0])
    environment = world.open_environment(task)
    environment.user_turn("restart it")
    assert world.left(task, environment) == "done: asked restart; the phone is broken"
    assert world.own_task("hello") is None
