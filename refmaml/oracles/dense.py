"""Small Hessians as matrices, and linear systems by LAPACK.

They are the oracles of Hessian-vector products and of conjugate gradients.
"""

import numpy as np

from refmaml.oracles import complex_step


def hessian(net, w, x, y):
    """H (P, P) of one task's loss at w (P,) by the complex step on the gradient.

    x (1, N, ...), y (1, N, ...).
    """

    def gradient(W):
        return net.gradient(
            W,
            np.broadcast_to(x, (len(W), *x.shape[1:])),
            np.broadcast_to(y, (len(W), *y.shape[1:])),
        )

    return complex_step.jacobian(gradient, w)


def gauss_newton(net, w, x, y):
    """J' H_L J (P, P) of one task at w (P,).

    J is the complex step on the outputs, H_L the complex step on the loss's gradient.
    """
    k, loss = net.kernels, net.loss_function

    def outputs(W):
        return net.forward(net.parameters.views(W), np.broadcast_to(x, (len(W), *x.shape[1:])))[
            0
        ].reshape(len(W), -1)

    def output_gradient(Z):
        z = Z.reshape(len(Z), *shape)
        return loss.backward(
            k, loss.forward(k, z, np.broadcast_to(y, (len(Z), *y.shape[1:])))[1]
        ).reshape(len(Z), -1)

    shape = (x.shape[1], *net.output_shape(x.shape[2:]))
    J = complex_step.jacobian(outputs, w)
    return J.T @ complex_step.jacobian(output_gradient, outputs(w[None])[0]) @ J


def imaml_gradient(H, query_gradient, strength, moves):
    """The implicit gradient (P,) from a dense H.

    (I + H_aa / lambda) u_a = grad_a g; u_b = grad_b g - H_ba u_a / lambda. The
    parameters a adapt, the parameters b do not. moves: (P,), 1 for a, 0 for b.
    """
    a = moves.astype(bool)
    out = query_gradient.copy()
    out[a] = np.linalg.solve(np.eye(a.sum()) + H[np.ix_(a, a)] / strength, query_gradient[a])
    out[~a] -= H[np.ix_(~a, a)] @ out[a] / strength
    return out
