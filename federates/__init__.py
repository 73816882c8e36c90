"""The shell: bus and clock, HELICS, launcher, command line."""
