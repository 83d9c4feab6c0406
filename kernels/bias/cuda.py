"""A number per channel on a GPU, by the kernels of bias.cu.

Not run on a GPU yet.
"""

__all__ = ["bias_forward", "bias_backward"]


def bias_forward(launch, y, b):
    """y += b, broadcast over examples and positions."""
    launch.elements("bias", "bias_forward", [y], [b], *y.shape[1:])


def bias_backward(launch, db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l]."""
    launch.teams("bias", "bias_backward", db.shape[1], [db], [dy], *dy.shape[1:])
