"""Training: one loop that knows no stage, and the stages of the method."""
