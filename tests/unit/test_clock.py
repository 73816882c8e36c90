"""The market clock: order within a minute, primary periods, warm-up and closing instants."""

from voltier.agents.clock import MarketClock

CLOCK = MarketClock(primary_period_s=300, end_s=600)


def instants(role):
    return list(CLOCK.instants(role))


def test_consumers_bid_once_before_the_first_minute():
    assert instants("cmo")[0] == -57
    assert instants("wholesale")[0] == -60
    assert instants("grid")[0] == 4


def test_primary_market_acts_each_period_and_settles_after_the_end():
    assert instants("pmo") == [1, 301, 601]


def test_smo_clears_after_the_primary_market_in_its_minutes():
    smo = instants("smo")
    assert smo[:4] == [0, 2, 60, 120]
    assert {300, 302} <= set(smo)
    assert smo[-1] == 600


def test_within_a_minute_everyone_reads_what_was_decided_before():
    order = [
        (CLOCK_S, role) for role in ("wholesale", "smo", "pmo", "cmo", "grid") for CLOCK_S in instants(role)
    ]
    minute = [role for at_s, role in sorted(order) if 300 <= at_s < 360]
    assert minute.index("pmo") < minute.index("cmo") < minute.index("grid")
    # The SMO acts before the primary market (bids) and again after it (schedule).
    assert [role for role in minute if role in ("smo", "pmo")] == ["smo", "pmo", "smo"]
