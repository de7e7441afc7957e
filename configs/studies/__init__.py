"""Studies: sets of configs to compare, each made from the config that the command line names."""
