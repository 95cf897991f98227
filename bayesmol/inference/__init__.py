"""How posteriors are computed; knows no chemistry."""
