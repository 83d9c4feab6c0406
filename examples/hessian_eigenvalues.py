"""The largest eigenvalues of a net's Hessian by SciPy's eigsh, without ever forming it.

python examples/hessian_eigenvalues.py
"""

import numpy as np
from scipy.sparse.linalg import eigsh

import refmaml as rm

net = rm.mlp((1, 20, 20, 1), activation="tanh")
theta = net.init(seed=0, dtype=np.float64)
batch = rm.Sinusoids().sample(tasks=4, k_shot=10, k_query=10, seed=0, dtype=np.float64)

H = net.hessian(theta, batch.x_support, batch.y_support)  # a scipy LinearOperator
largest = eigsh(H, k=3, return_eigenvectors=False, v0=np.ones(net.num_params))[::-1]
print(f"{H.shape[0]} parameters, largest eigenvalues", *(f"{value:.4f}" for value in largest))

# The same from the dense matrix, built column by column.
dense = np.stack([H @ e for e in np.eye(net.num_params)], axis=1)
exact = np.linalg.eigvalsh(dense)[::-1][:3]
print(f"eigsh agrees with the dense matrix: {np.allclose(largest, exact, rtol=1e-10)}")
print(f"the matrix is symmetric: {np.allclose(dense, dense.T, atol=1e-12)}")
