"""What the user types: flags, errors, completion, terminal and start-up."""
