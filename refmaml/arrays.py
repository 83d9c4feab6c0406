"""Checks of arrays that come from a caller, before any kernel sees them."""

import numpy as np

from refmaml.errors import expect


def expect_array(argument, a, kernels):
    """Raise ArgumentError unless `a` is an array that the kernel set computes with.

    Masked arrays are refused: the kernels would ignore the mask.
    """
    known = isinstance(a, np.ndarray | kernels.xp.ndarray) and not isinstance(a, np.ma.MaskedArray)
    expect(
        known, argument, "a NumPy array" if kernels.xp is np else "an array", lambda: described(a)
    )


def described(a):
    """What a value is, in a few words, for error messages."""
    shape = getattr(a, "shape", None)
    of_shape = "" if shape is None else f" of shape {tuple(shape)}"
    package = type(a).__module__.partition(".")[0]
    prefix = "" if package in ("numpy", "builtins") else f"{package}."
    return f"{prefix}{type(a).__name__}{of_shape}"


def direction(primal, v, kernels):
    """v as (T or 1, P) in the precision of the pass `primal`, for a product with it.

    Raises ArgumentError for another shape or kind. v may be complex.
    """
    expect_array("v", v, kernels)
    T, P = primal.grad.shape
    ok = v.ndim == 2 and v.shape[1] == P and v.shape[0] in (1, T)
    expect(ok, "v", lambda: f"shape ({T}, {P}) or (1, {P})", lambda: f"shape {v.shape}")
    expect(v.dtype.kind in "fciu", "v", "real or complex numbers", lambda: f"dtype {v.dtype}")
    real = primal.grad.dtype.kind != "c"
    kind = np.result_type(primal.grad.dtype, np.complex64) if v.dtype.kind == "c" and real else None
    return v.astype(kind or primal.grad.dtype, copy=False)


def complex_product(product, primal, v):
    """product(primal, v); v may be complex.

    Where the pass is real, real and imaginary part go apart: A (a + ib) = Aa + i Ab.
    """
    if v.dtype.kind != "c" or primal.grad.dtype.kind == "c":
        return product(primal, v)
    return product(primal, v.real.copy()) + 1j * product(primal, v.imag.copy())
