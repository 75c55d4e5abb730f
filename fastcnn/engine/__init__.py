"""The three engines, the registry that chooses one, and the policy that it follows."""
