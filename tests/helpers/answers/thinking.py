"""Right and plausible wrong answers to the exercises of notebook 08."""

from kimi_mini.course.exercises import thinking as ex


def hard_stop(thought, budget):
    return [*thought[:budget], "</think>"]


def follow(operations, step, value):
    for operation in operations[step + 1 :]:
        value = eval(f"({value}) {operation}") % 100
    return value


def vote(found):
    answers = [answer for answer, _ in found]
    return max(answers, key=answers.count), sum(tokens for _, tokens in found)


def reliability(calls, success):
    return success ** (1 / calls)


RIGHT = [
    (ex.check_hard_stop, hard_stop),
    (ex.check_follow, follow),
    (ex.check_vote, vote),
    (ex.check_reliability, reliability),
]
WRONG = [
    (ex.check_hard_stop, lambda thought, budget: thought[:budget], "stays open"),
    (
        ex.check_hard_stop,
        lambda thought, budget: [*thought[: max(0, budget - 1)], "</think>"],
        "costs nothing",
    ),
    (ex.check_hard_stop, lambda thought, budget: [*thought[: budget + 1], "</think>"], "too many"),
    (ex.check_hard_stop, lambda thought, budget: thought, "nothing was cut"),
    (
        ex.check_hard_stop,
        lambda thought, budget: hard_stop(thought, budget) if budget < 20 else thought,
        "closed too",
    ),
    (ex.check_hard_stop, lambda thought, budget: 3, "list"),
    (
        ex.check_hard_stop,
        lambda thought, budget: hard_stop(thought, budget or len(thought)),
        "a budget of 0 leaves nothing",
    ),
    (
        ex.check_hard_stop,
        lambda thought, budget: [*thought[max(0, len(thought) - budget) :], "</think>"],
        "keep the beginning",
    ),
    (
        ex.check_vote,
        lambda found: (
            min(found, key=lambda one: (-[a for a, _ in found].count(one[0]), one[1]))[0],
            vote(found)[1],
        ),
        "not to the cheapest",
    ),
    (ex.check_follow, lambda ops, step, value: value, "you get"),
    (ex.check_follow, lambda ops, step, value: follow(ops, step - 1, value), "once more"),
    (ex.check_follow, lambda ops, step, value: follow(ops, -1, value), "once more|behind"),
    (ex.check_follow, lambda ops, step, value: follow(ops[: step + 2], step, value), "only the next"),
    (ex.check_vote, lambda found: (max(a for a, _ in found), vote(found)[1]), "as they are|frequent"),
    (ex.check_vote, lambda found: (vote(found)[0], dict(reversed(found))[vote(found)[0]]), "paid for"),
    (ex.check_vote, lambda found: (found[-1][0], vote(found)[1]), "frequent"),
    (ex.check_vote, lambda found: vote(found)[0], "two things"),
    (
        ex.check_vote,
        lambda found: (
            min({a for a, _ in found}, key=lambda a: (-[b for b, _ in found].count(a), a)),
            vote(found)[1],
        ),
        "not to the smallest",
    ),
    (
        ex.check_vote,
        lambda found: (
            max({a for a, _ in found}, key=lambda a: ([b for b, _ in found].count(a), a)),
            vote(found)[1],
        ),
        "came first",
    ),
    (ex.check_reliability, lambda calls, success: success / calls, "product"),
    (ex.check_reliability, lambda calls, success: success**calls, "way back"),
    (ex.check_reliability, lambda calls, success: 1 - (1 - success) / calls, "multiply"),
    (ex.check_reliability, lambda calls, success: success, "toll"),
    (ex.check_reliability, lambda calls, success: round(reliability(calls, success), 3), "you get"),
    (ex.check_reliability, lambda calls, success: "often", "number"),
]
