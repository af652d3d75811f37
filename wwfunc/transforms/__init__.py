"""Changes of weights: what is kept, and what is taken out."""
