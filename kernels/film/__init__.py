"""Feature-wise linear modulation: every channel scaled and shifted, for each task."""
