"""Random orthonormal columns."""

import numpy as np


def random_orthonormal(rng, rows, columns):
    """Q (rows, columns), Q'Q = I, its column space uniform (Haar measure).

    Q of the QR factors of a normal matrix, each column with the sign of R's diagonal:
    LAPACK's own choice of signs would bias it (Mezzadri, "How to generate random
    matrices from the classical compact groups", 2007).
    """
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
