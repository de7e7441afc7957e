"""How fast the compiled programs are, and how much they compute."""
