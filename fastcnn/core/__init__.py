"""What every room stands on: integers, checks, settings, files; no mathematics of nets."""
