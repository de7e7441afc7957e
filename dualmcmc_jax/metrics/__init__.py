"""How a number is computed: pure functions on arrays."""
