"""What all cuda.py share: launches, transfers, CUDA graphs, matrix products."""
