"""Training: one loop, a file a stage."""
