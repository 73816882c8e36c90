"""Who takes part: devices, houses, market operators, resilience manager, attacker."""
