"""The physics: feeder tables, network views and power-flow engines."""
