"""Whether commitment scores tell who keeps their word: the last scores of a run against how reliable agents were made.

Agents fall in three classes of reliability, which no operator is told. Target: a rank correlation of at least 0.8.
"""

import numpy as np
from scipy.stats import spearmanr

from voltier.agents.population import UNRELIABLE
from voltier.federates.session import run_scenario
from voltier.scenarios.built_case import built_case
from voltier.scenarios.panels import read_block
from voltier.scenarios.schema import load_scenario


def test_commitment_scores_rank_agents_by_their_reliability(tmp_path):
    # Three hours of evening, in which agents are called on: scores forget with a time constant of 20 minutes.
    scenario = load_scenario(
        "ieee123-day", ["start=2020-07-15T18:00", "hours=3", "primary.relaxation_bound=false"]
    )
    path = run_scenario(scenario, tmp_path / "run", transport="none")
    secondary = read_block(path, "secondary")
    reliability = -built_case(scenario).population.sma_reliability
    last = secondary["cs"][-1]
    assert np.ptp(last) > 0.1
    assert spearmanr(last, reliability).statistic >= 0.8
    means = [last[reliability == -kind].mean() for kind in range(UNRELIABLE + 1)]
    assert means[0] > means[1] > means[2]
