"""Right and plausible wrong probes for a tool that a filter of single calls lets through (notebook 06)."""

from kimi_mini.course.exercises import probes as ex

WRITES = (("set", 0, 501), ("set", 1, 502), ("set", 0, 503), ("create", "plum", 504), ("harm", 1, 502))


def prober(writes=WRITES, before=True, judges=("read", "find"), harms=True):
    """A probe of these writes. before: ask the witnesses before each as well; judges: who is asked; harms: knows that
    what is removed is gone."""

    def probe(call, names):
        def witnesses(name, number):
            found = {"read": call("read", name=name) == number, "find": name in call("find", number=number)}
            return {kind: found[kind] for kind in judges}

        for kind, which, number in writes:
            name = which if isinstance(which, str) else names[which]
            if before:
                witnesses(name, number)
            call(kind, name=name, number=number)
            wanted = not (harms and kind == "harm")
            wrong = [judge for judge, there in witnesses(name, number).items() if there != wanted]
            if wrong:
                return kind if len(wrong) == len(judges) else wrong[0]
        return "right"

    return probe


def single_calls(call, names):
    """Each tool once, as the filter does it."""
    answers = [call(kind, name="plum" if kind == "create" else names[2], number=5) for kind in ex.SUITE]
    return next((kind for kind, said in zip(ex.SUITE, answers) if str(said).startswith("error")), "right")


def many_calls(call, names):
    while call("read", name=names[0]) is not None:
        pass


RIGHT = [(ex.check_probe, prober())]
WRONG = [
    (ex.check_probe, single_calls, "let through"),
    (ex.check_probe, lambda call, names: "right", "makes no call"),
    (ex.check_probe, lambda call, names: True, "return one of"),
    (ex.check_probe, lambda call, names: "set", "false alarm"),
    (ex.check_probe, prober(harms=False), "false alarm"),
    (ex.check_probe, prober(judges=("read",)), "second witness"),
    (ex.check_probe, prober(judges=("find",)), "let through: `read`"),
    (
        ex.check_probe,
        prober((*WRITES[:2], *WRITES[3:]), before=False),
        "`read` answers a question as it did the first time",
    ),
    (ex.check_probe, prober((WRITES[0], WRITES[3], ("harm", 0, 501))), "never again"),
    (ex.check_probe, prober((WRITES[0], *WRITES[2:4], ("harm", 0, 503))), "whichever it is told"),
    (ex.check_probe, prober(WRITES[1:2] + WRITES[3:]), "never again"),
    (ex.check_probe, prober((*WRITES[:3], WRITES[4])), "let through: `create`"),
    (ex.check_probe, prober(WRITES[:4]), "let through: `harm`"),
    (ex.check_probe, many_calls, "more than 40 calls"),
    (ex.check_probe, lambda call, names: call("fly"), "no tool 'fly'"),
]
