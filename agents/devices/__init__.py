"""One device a file: constraints and costs for the plan, response to the market, physics, how a fleet has it."""
