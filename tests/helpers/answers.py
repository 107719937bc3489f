"""What readers hand to an exercise's checker before they have solved it, and what it must say of that."""


def unsolved(*arguments): ...


def failing(*arguments):
    raise KeyError("x")


def assert_hints(
    check, wrong=((unsolved, "three dots"), (failing, "KeyError"), (None, "itself"), (..., "itself"))
):
    """The checker accepts none of these (answer, words) and says those words in its hint."""
    for answer, words in wrong:
        found = check(answer)
        assert not found and repr(found).startswith("not yet: ") and words in found.text, answer
