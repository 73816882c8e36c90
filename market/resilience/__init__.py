"""Rules of the resilience managers: detection, scores, re-weighting."""
