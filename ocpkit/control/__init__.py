"""Solutions at work: MPC, closed loops, estimators, noise, and controllers in C."""
