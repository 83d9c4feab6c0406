"""Where and how work runs. The mathematics (layers, network, methods) knows none of it.

    sequential.py         Sequential: a Network on any kernel set, on CPU or GPU
    interoperability.py   the net in SciPy, PyTorch and JAX
    one_kernel.py         a net, or an inner loop with its adjoint, as one CPU kernel
    fusion.py             which layers become one operation
    fused_layers.py       those layers
    device_transfer.py    NumPy arrays to a GPU and back, in one copy
    deferred_checks.py    finiteness that is checked once, at the end of the work
    chunks.py             tasks some at a time, fewer where a GPU's memory ends
    groups.py             tasks of different sizes: groups of equal sizes
    recorded_gradient.py  a method's meta-gradient as a CUDA graph

The seam is `Model.run`: a method hands its work to its net, and `Sequential.run`
decides.
"""

from refmaml.execution.sequential import Sequential

__all__ = ["Sequential"]
