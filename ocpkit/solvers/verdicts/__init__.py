"""Is it optimal? Natural units, distance from a stationary point, and whether that is a minimum."""
