"""How do the models learn? The training step, the state it updates, the objectives, and the loop that runs it."""
