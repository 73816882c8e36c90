"""Certificates of local markets: what is amiss is told when it begins, and only what is amiss."""

from dataclasses import replace

import numpy as np

from voltier.agents.certificates import GameBook, Onset
from voltier.market.consumer import play_game

NAMES, POSITION = ("sma_a", "sma_b"), np.array([7, 8])
P0 = np.array([-3.0, -2.0, -4.0, 3.99])


def games(target=(-4.5, 0.1)):
    """Two markets of two houses; the wishes of the second cancel."""
    offset, pi = np.array([0, 2, 4]), np.full(2, 0.08)
    return play_game(offset, P0, P0 - 1, P0 + 1, np.full(4, 0.5), np.asarray(target), pi)


def told(rows):
    return [(row.columns["kind"][0], row.columns["text"][0].split(":")[0]) for row in rows]


def test_trouble_is_told_when_it_begins_and_again_after_its_rest():
    flags = np.array([[0, 1], [1, 1], [0, 1], [1, 0], [0, 0], [0, 0], [1, 1]], dtype=bool)
    watch, patient = Onset(2), Onset(2, rest=3)
    assert [watch.begun(row) for row in flags] == [[1], [0], [], [0], [], [], [0, 1]]
    assert [patient.begun(row) for row in flags] == [[1], [0], [], [], [], [], [1]]


def test_a_side_payment_is_told_once_and_recorded_as_a_mean():
    book, game = GameBook(NAMES, POSITION), games()
    assert told(book.add(0, game, 0.002)) == [("game-degenerate", "sma_b")]
    assert book.add(60, game, 0.002) == []
    apart = games(target=(-4.5, -0.01))  # the wish itself: nothing is moved, nothing paid
    assert book.add(120, apart, 0.002) == []
    row = book.close(0)
    np.testing.assert_array_equal(row.columns["position"], POSITION)
    paid = 2.0 * game.side_payment_usd_per_h[1] / 3.0
    np.testing.assert_allclose(row.columns["side_payment_usd_per_h"], [0.0, paid], rtol=1e-12)
    np.testing.assert_allclose(row.columns["solve_s"].sum(), 0.006, rtol=1e-12)
    assert not book.close(180).columns["side_payment_usd_per_h"].any()  # each period starts anew


def test_a_game_that_is_not_exact_is_told_and_its_worst_minute_recorded():
    book, good = GameBook(NAMES, POSITION), games()
    book.add(0, good, 0.0)
    off_track = replace(good, tracking_error_kw=np.array([-2e-6, 5e-7]))
    assert told(book.add(60, off_track, 0.0)) == [("game-inexact", "sma_a")]
    assert book.add(120, off_track, 0.0) == []
    undefined = replace(good, budget_error_usd_per_h=np.array([0.0, np.nan]))
    assert told(book.add(180, undefined, 0.0)) == [("game-inexact", "sma_b")]  # not a number is not small
    off_budget = replace(good, budget_error_usd_per_h=np.array([3e-6, 0.0]))
    assert told(book.add(240, off_budget, 0.0)) == [("game-inexact", "sma_a")]
    columns = book.close(0).columns
    np.testing.assert_allclose(columns["tracking_error_kw"], [2e-6, 5e-7], rtol=1e-6)
    assert columns["budget_error_usd_per_h"][0] == 3e-6


def test_a_target_out_of_reach_is_infeasible_and_not_inexact():
    book = GameBook(NAMES, POSITION)
    assert told(book.add(0, games(target=(-2.0, 0.1)), 0.0)) == [
        ("game-infeasible", "sma_a"),
        ("game-degenerate", "sma_b"),
    ]
    columns = book.close(0).columns
    np.testing.assert_array_equal(columns["infeasible_share"], [1.0, 0.0])
    np.testing.assert_array_equal(columns["degenerate_share"], [0.0, 1.0])
    np.testing.assert_allclose(columns["tracking_error_kw"], [1.0, 0.0], atol=1e-12)
