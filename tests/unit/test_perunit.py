"""Bases of the per-unit system, by hand."""

import numpy as np
import pytest

from voltier.grid.perunit import PerUnit


def test_bases_of_1_mva_at_4160_v():
    base = PerUnit(1000.0, 4.16)
    assert base.z_base_ohm == pytest.approx(4.16**2)
    assert base.i_base_a == pytest.approx(1000 / (np.sqrt(3) * 4.16))
    assert base.v_base_v == pytest.approx(4160 / np.sqrt(3))
    # ohm's law closes: v = z·i
    assert base.z_base_ohm * base.i_base_a == pytest.approx(base.v_base_v)
