"""Studies: many runs by one command, and a table of them."""
