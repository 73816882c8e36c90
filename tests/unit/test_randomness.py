"""Streams belong to names, not to order or process."""

import numpy as np

from voltier.agents.randomness import stream


def test_a_name_always_gets_the_same_stream():
    np.testing.assert_array_equal(stream(7, "house", 3).random(5), stream(7, "house", 3).random(5))


def test_other_names_and_seeds_get_other_streams():
    draws = {
        stream(seed, *name).random() for seed in (1, 2) for name in (("house", 1), ("house", 2), ("sma", 1))
    }
    assert len(draws) == 6
