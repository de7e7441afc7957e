"""How is each number computed? Pure functions of arrays."""
