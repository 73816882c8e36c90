"""One flexible device a file: dynamics, limits, response."""
