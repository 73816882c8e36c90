"""Bases of the per-unit system, by hand."""

import numpy as np
import pytest

from voltier.grid.perunit import PerUnit, power_kw, power_pu, price_usd_per_kwh


def test_bases_of_1_mva_at_4160_v():
    base = PerUnit(1000.0, 4.16)
    assert base.z_base_ohm == pytest.approx(4.16**2)
    assert base.i_base_a == pytest.approx(1000 / (np.sqrt(3) * 4.16))
    assert base.v_base_v == pytest.approx(4160 / np.sqrt(3))
    # ohm's law closes: v = z·i
    assert base.z_base_ohm * base.i_base_a == pytest.approx(base.v_base_v)


def test_power_there_and_back_and_price():
    power = np.array([-250.0, 40.0])
    assert power_kw(power_pu(power, 500.0), 500.0) == pytest.approx(power)
    # a marginal cost of 120 $/h per pu of 1 MVA is 0.12 $/kWh
    assert price_usd_per_kwh(np.array([120.0]), 1000.0) == pytest.approx([0.12])
