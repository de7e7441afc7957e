"""How results are shown: tables, figures, the HTML page and the model card."""
