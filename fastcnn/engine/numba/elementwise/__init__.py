"""What works on each element, row or channel: activations, losses, normalisation, steps."""
