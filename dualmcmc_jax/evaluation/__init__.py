"""How good is a trained model? One module per question, and `suite`, which runs all of them and builds the report."""
