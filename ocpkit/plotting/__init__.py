"""Pictures and films of solutions and closed loops."""
