"""Studies: sets of configs to compare, all derived from the config that the command line names."""
