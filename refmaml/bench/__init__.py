"""Performance of kernels and meta-gradients, beside limits and other libraries.

Nothing below the command line imports this package.
"""
