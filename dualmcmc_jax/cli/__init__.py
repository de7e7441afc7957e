"""The command line: flags, error messages, tab completion, terminal output and start-up."""
