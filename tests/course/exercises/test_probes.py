"""The probe of notebook 06: broken tools that a filter of single calls lets through, and does not in the next call."""

import pytest

from kimi_mini.course.exercises.long.probes import BROKEN, DOMAINS_TRIED, SUITE, Bench


def filtered(domain, *desk, **options):
    """What each tool answers when it is called once, at a fresh desk."""
    said = []
    for kind in SUITE:
        bench = Bench(domain, *desk, **options)
        said.append(bench.call(kind, name="plum" if kind == "create" else bench.names[1], number=5))
    return said


@pytest.mark.parametrize(("kind", "desk", "options", "how"), BROKEN)
def test_single_calls_do_not_show_what_is_broken(kind, desk, options, how):
    for domain in DOMAINS_TRIED:
        assert filtered(domain, desk, kind=kind, **options) == filtered(domain)


def test_the_suite_has_one_tool_of_each_kind_and_all_of_them_work():
    for domain in DOMAINS_TRIED:
        bench = Bench(domain)
        assert sorted(bench.specs) == sorted(SUITE) and len({s.what for s in bench.specs.values()}) == 2
        read, found, *done = filtered(domain)
        assert isinstance(read, int) and found == [] and done == [True] * 3
        assert bench.call("read", name="plum") == 'error: no "plum" here'
