"""INT8 graphs: Q/DQ pairs, the rules for them, and weights that cannot saturate."""
