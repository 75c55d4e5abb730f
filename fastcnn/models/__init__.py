"""Models: layers in a row, nets by name, and how a net runs as compiled programs."""
