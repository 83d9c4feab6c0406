"""Networks and meta-gradients in PyTorch and JAX, by automatic differentiation.

formulas.py        forward formulas of every layer and loss, in the operations that
                   torch and jax.numpy spell alike
torch_autodiff.py  oracle: meta-gradients and Hessian-vector products by PyTorch,
                   float64
jax_autodiff.py    oracle: the same by JAX, float64
torch_formulas.py  formulas for speed, with PyTorch's own operations; used by the bench
jax_formulas.py    formulas for speed, for XLA; used by the bench
net_function.py    a net as a function of named parameters, for users of a framework

The oracles and net_function.py use formulas.py as it is, because it is right under
every order of differentiation. The two files for speed replace some of its entries and
take the rest from it. No framework is imported before it is used.
"""
