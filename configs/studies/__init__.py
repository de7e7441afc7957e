"""Studies: sets of configs to be compared, each made of the one config that the command line names."""
