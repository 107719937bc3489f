"""The comparison with what others published: every row has its source, and the claims follow from the rows."""

import math

import pytest

from kimi_mini.base.evidence import Log
from kimi_mini.experiments.deployment import costs
from kimi_mini.inference.serving.roofline import Mode


@pytest.fixture(scope="module")
def rows():
    return [*costs.sizes(), *costs.speeds(), *costs.money()]


def test_every_row_has_a_source_and_a_difference(rows):
    assert len({row.name for row in rows}) == len(rows) == 20
    assert all(row.source and row.says and row.computed > 0 and row.published > 0 for row in rows)
    assert {row.kind for row in rows} == {"memory", "decode", "prefill", "money"}
    assert all(0.8 * row.published < row.computed < 12 * row.published for row in rows)


def test_no_gap_is_left_out_of_the_claims(rows, tmp_path):
    """The farthest of all that was timed on cards of servers is the value of a claim."""
    log = Log("costs", folder=tmp_path)
    for row in rows:
        log.row(part="published", **row._asdict(), ratio=row.computed / row.published)
    for batch in (1, 8, 64, 512):
        log.row(part="formats", batch=batch, bf16=2.0, fp8=1.0, int4=1.0)
    costs.own_or_api(log)
    log.row(part="routing", error=0.0, success=1.0, cost=1.0)
    costs.report(log)
    found = {claim["name"]: claim for claim in log.claims}
    gaps = [row["ratio"] for row in log.rows if row["part"] == "published"]
    assert found["costs/prompts"]["value"] == max(gaps) > found["costs/small"]["value"]
    assert found["costs/large"]["value"] < 3 < found["costs/small"]["value"]


def test_routes_begin_at_reflex_and_end_at_thinking():
    cheap, dear = costs.classes()
    ends = costs.routes(cheap, dear, 0.0)
    assert len(ends) == len(cheap) + 1 and ends[0]["sent"] == 0 and ends[-1]["sent"] == pytest.approx(1)
    assert ends[0]["success"] == pytest.approx(sum(mode.success for mode in cheap) / len(cheap))
    worth = [(b.success - a.success) / b.tokens for a, b in zip(cheap, dear)]
    assert worth == sorted(worth, reverse=True)
    coin = costs.routes(cheap, dear, 0.5)
    assert all(math.isclose(found["success"], coin[0]["success"]) for found in coin)


def test_a_router_that_errs_is_worse_where_it_matters():
    cheap, dear = [Mode(0.0, 1, 1), Mode(1.0, 1, 1)], [Mode(1.0, 10, 1), Mode(1.0, 10, 1)]
    right, wrong = (costs.routes(cheap, dear, error)[1] for error in (0.0, 0.2))
    assert right["success"] == 1 and wrong["success"] == pytest.approx(0.9)


def test_own_cards_against_the_api(tmp_path):
    log = Log("x", folder=tmp_path)
    costs.own_or_api(log)
    for row in log.rows:
        assert row["share"] == pytest.approx(
            row["own_price"] / row["api_price"]
        )  # full cards at break-even cost alike
        assert row["cheaper_from"] * row["api_price"] == pytest.approx(row["rent"])
    assert len(log.rows) == 6
