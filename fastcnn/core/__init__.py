"""The foundation of all rooms: integers, checks, settings, files; no mathematics of nets."""
