"""The train step and what runs it."""
