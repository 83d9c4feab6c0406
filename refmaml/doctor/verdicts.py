"""The three verdicts."""

RIGHT, WRONG, INCONCLUSIVE = "right", "wrong", "inconclusive"
