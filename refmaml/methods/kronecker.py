"""log det of Kronecker-factored curvature, and its gradient by one injected R-pass.

A linear layer y_n = W a_n in a task's support set: a_n (F,) its inputs, with a 1 at the
end where it has a bias, and d_n (O,) the adjoints of its outputs. With N examples, and
the scale s of the loss, f = s sum_n l_n (1/N for a mean):

    A = 1/N sum_n a_n a_n'     G = 1/s sum_n d_n d_n'     H ~ A (x) G
    L = log det((A + g I) (x) (G + g I)) = O log|A + g I| + F log|G + g I|,  g^2 = tau

A convolution has the same with its S places: its windows are the a, and G has another
1/S. Other layers do not count. G is the empirical Fisher matrix: that of the targets.

L depends on the forward and on the backward pass. Its adjoints with respect to both,

    abar_n = dL/da_n = 2 O/N (A + g I)^-1 a_n
    dbar_n = dL/dd_n = 2 F/(s S) (G + g I)^-1 d_n

are pulled back by one R-pass. d_n is df/de_n for a shift e_n of the layer's outputs, so
<dbar, d> is the derivative of f along the shifts e = dbar of all layers at once. Its
gradient is R{grad f} with the tangents dbar injected at the layers' outputs, and with
no tangent in the parameters; abar is added to rdx on the way back.

L is finite for every tau > 0, as A and G are positive semidefinite.
Sources: Martens and Grosse 2015 (K-FAC), section 3; Grosse and Martens 2016
(convolutions); Grant et al. 2018 (LLAMA) for the use. The gradient is derived here.
"""

from math import sqrt
from typing import Any, NamedTuple

from refmaml.errors import expect
from refmaml.layers.bilinear import Conv2d, Linear
from refmaml.layers.extents import pair
from refmaml.layers.layer import Array
from refmaml.methods.symmetric_solves import identity, times, transposed_times
from refmaml.network import Network
from refmaml.primal import Primal

# ---- a layer's rows: a (B, n, F) and d (B, n, O), B = T tasks times G groups ---------


def inputs_as_rows(k: Any, layer: Any, x: Array) -> Array:
    """a: a row of inputs, or of windows, for each place; 1 at the end with a bias."""
    a = x if isinstance(layer, Linear) else windows(k, layer, x)
    if not layer.bias:
        return k.xp.ascontiguousarray(a)
    return k.concatenate([a, k.xp.ones((*a.shape[:2], 1), a.dtype)], axis=2)


def to_inputs(k: Any, layer: Any, da: Array, x: Array) -> Array:
    """The adjoint of `inputs_as_rows`, in the shape of x."""
    da = da[..., :-1] if layer.bias else da
    return da if isinstance(layer, Linear) else from_windows(k, layer, da, x)


def outputs_as_rows(k: Any, layer: Any, dy: Array) -> Array:
    """d: a row for each example, and for each place of a convolution."""
    if isinstance(layer, Linear):
        return dy
    T, N, O, h, w = dy.shape
    G = layer.groups
    rows = dy.reshape(T, N, G, O // G, h, w).transpose(0, 2, 1, 4, 5, 3)
    return k.xp.ascontiguousarray(rows).reshape(T * G, N * h * w, O // G)


def to_outputs(k: Any, layer: Any, d: Array, dy: Array) -> Array:
    """The adjoint of `outputs_as_rows`, in the shape of dy."""
    if isinstance(layer, Linear):
        return d
    T, N, O, h, w = dy.shape
    G = layer.groups
    back = d.reshape(T, G, N, h, w, O // G).transpose(0, 2, 1, 5, 3, 4)
    return k.xp.ascontiguousarray(back).reshape(dy.shape)


def taps(layer: Any, x: Array) -> tuple[list, tuple, tuple]:
    """The slices of padded images that each tap of a filter sees; padding, extents."""
    kernel, stride, padding, out = layer.geometry(x.shape[3:])
    reach = [
        [slice(d * p, d * p + s * (n - 1) + 1, s) for p in range(size)]
        for size, s, d, n in zip(kernel, stride, pair(layer.dilation, "dilation"), out, strict=True)
    ]
    return [(rows, columns) for rows in reach[0] for columns in reach[1]], padding, out


def padded(k: Any, x: Array, padding: tuple) -> tuple[Array, tuple]:
    """x with zeros around it, and the slices at which x itself stands."""
    (top, bottom), (left, right) = padding
    H, W = x.shape[3:]
    out = k.xp.zeros((*x.shape[:3], top + H + bottom, left + W + right), x.dtype)
    place = slice(top, top + H), slice(left, left + W)
    out[..., place[0], place[1]] = x
    return out, place


def windows(k: Any, layer: Any, x: Array) -> Array:
    """(T G, N h w, C/G kH kW) of images x (T, N, C, H, W), ordered as the weight is."""
    (T, N, C), G = x.shape[:3], layer.groups
    places, padding, (h, w) = taps(layer, x)
    around, _ = padded(k, x, padding)
    each = k.xp.stack([around[..., rows, columns] for rows, columns in places], axis=3)
    each = each.reshape(T, N, G, C // G * len(places), h, w).transpose(0, 2, 1, 4, 5, 3)
    return k.xp.ascontiguousarray(each).reshape(T * G, N * h * w, -1)


def from_windows(k: Any, layer: Any, da: Array, x: Array) -> Array:
    """The adjoint of `windows`."""
    (T, N, C), G = x.shape[:3], layer.groups
    places, padding, (h, w) = taps(layer, x)
    each = da.reshape(T, G, N, h, w, -1).transpose(0, 2, 1, 5, 3, 4)
    each = each.reshape(T, N, C, len(places), h, w)
    around, (inner_rows, inner_columns) = padded(k, k.xp.zeros(x.shape, da.dtype), padding)
    for number, (rows, columns) in enumerate(places):
        around[..., rows, columns] += each[:, :, :, number]
    return k.xp.ascontiguousarray(around[..., inner_rows, inner_columns])


# ---- the factors of one layer --------------------------------------------------------


class Factors(NamedTuple):
    """L (T,) of one layer, dL/dx and dL/ddy."""

    value: Array
    dx: Array
    ddy: Array


def factors(k: Any, layer: Any, x: Array, dy: Array, scale: float, damping: float) -> Factors:
    """A and G of a layer with inputs x and output adjoints dy; damping: g."""
    a, d = inputs_as_rows(k, layer, x), outputs_as_rows(k, layer, dy)
    N, places, F, O = x.shape[1], a.shape[1] // x.shape[1], a.shape[2], d.shape[2]
    log_A, inverse_A = damped_inverse(k, transposed_times(k, a, a) / N, damping)
    log_G, inverse_G = damped_inverse(k, transposed_times(k, d, d) / (scale * places), damping)
    abar = 2 * O / N * times(k, a, inverse_A)
    dbar = 2 * F / (scale * places) * times(k, d, inverse_G)
    value = (O * log_A + F * log_G).reshape(len(x), -1).sum(axis=1)
    return Factors(value, to_inputs(k, layer, abar, x), to_outputs(k, layer, dbar, dy))


def damped_inverse(k: Any, M: Array, damping: float) -> tuple[Array, Array]:
    """log det(M + g I) (B,) and (M + g I)^-1 (B, n, n), for M positive semidefinite."""
    damped = M + damping * identity(k, M.shape[1], M.dtype)
    _, value = k.xp.linalg.slogdet(damped)  # its sign is 1
    return value, k.xp.ascontiguousarray(k.xp.linalg.inv(damped))


# ---- a whole net ---------------------------------------------------------------------


def counted(net: Any, adapting: Array) -> list[int]:
    """The numbers of the linear and convolutional layers whose weights adapt.

    Raises ArgumentError where there is none.
    """
    layers = getattr(net, "layers", ())
    parts = getattr(getattr(net, "parameters", None), "slices", {})
    chosen = [
        i
        for i, layer in enumerate(layers)
        if isinstance(layer, Linear | Conv2d)
        and bool(adapting[parts[f"{net.names[i]}.weight"]].any())
    ]
    wanted = "a linear or convolutional layer that adapts, for Kronecker factors"
    expect(chosen, "net", wanted, "none")
    return chosen


class Factored(NamedTuple):
    """A pass of a net whose layers are separate, and {number of a layer: Factors}."""

    net: Network
    primal: Primal
    factors: dict


def pass_with_factors(
    net: Any, phi: Array, x: Array, y: Array, adapting: Array, precision: float
) -> Factored:
    """The factors of the support loss at phi (T or 1, P).

    adapting  (P,) is 0 where a parameter does not adapt
    Raises ArgumentError for a net without such a layer.
    """
    chosen, k = counted(net, adapting), net.kernels
    plain = Network(net.named_layers, net.loss_function, net.input_shape, k)
    primal = plain.primal(phi, x, y)
    N, outputs = primal.outputs.shape[1:]
    scale = net.loss_function.scale(N, outputs)
    found = {
        i: factors(k, plain.layers[i], primal.saved[i], primal.dys[i], scale, sqrt(precision))
        for i in chosen
    }
    return Factored(plain, primal, found)


def log_determinant(
    net: Any, phi: Array, x: Array, y: Array, adapting: Array, precision: float
) -> tuple[Array, Array]:
    """L (T,) and dL/dphi (T, P); arguments and errors as of `pass_with_factors`."""
    at = pass_with_factors(net, phi, x, y, adapting, precision)
    ddy = {i: layer.ddy for i, layer in at.factors.items()}
    dx = {i: layer.dx for i, layer in at.factors.items()}
    value = sum(layer.value for layer in at.factors.values())
    return value, injected_pass(at.net, at.primal, ddy, dx)


def injected_pass(net: Network, primal: Primal, at_outputs: dict, at_inputs: dict) -> Array:
    """The gradient (T, P) of sum_i <at_outputs[i], dy_i> + <at_inputs[i], x_i>.

    dy_i is the adjoint of layer i's outputs and x_i its inputs, in the pass `primal`; a
    dict may lack layers. One R-pass without a tangent in the parameters.
    """
    k, first, rx = net.kernels, net.first, None
    zeros = k.zeros((1, net.num_params), primal.grad.dtype)
    rw, rsaved = net.parameters.views(zeros), [None] * len(net.layers)
    for i in range(first, len(net.layers)):
        rx, rsaved[i] = net.layers[i].r_forward(k, primal.w[i], rw[i], primal.saved[i], rx)
        rx = rx + at_outputs[i] if i in at_outputs else rx
    rdy = net.loss_function.r_backward(k, primal.loss_saved, rx)
    gradient = k.empty(primal.grad.shape, primal.grad.dtype)
    rdw = net.parameters.views(gradient)
    for i in range(len(net.layers) - 1, first - 1, -1):
        rdy = net.layers[i].r_backward(
            k, rdw[i], primal.w[i], rw[i], primal.saved[i], rsaved[i],
            primal.dys[i], rdy, need_dx=i > first,
        )  # fmt: skip
        rdy = rdy + at_inputs[i] if i in at_inputs and i > first else rdy
    return gradient
