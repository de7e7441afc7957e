"""How are results shown? Tables, figures, the HTML page and the model card."""
