"""Lower bounds of the three-phase primary market: current-injection relaxations and cones of moments."""
