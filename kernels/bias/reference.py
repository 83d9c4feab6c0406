"""A number per channel, added in place: y[t,n,c,l] += b[t,c].

y (T, N, C, L)    b (T, C) per task or (1, C) shared
"""

__all__ = ["bias_forward", "bias_backward"]


def bias_forward(y, b):
    """y += b, broadcast over examples and positions."""
    y += b[:, None, :, None]


def bias_backward(db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l], the transpose of the broadcast."""
    db[...] = dy.sum(axis=(1, 3))
