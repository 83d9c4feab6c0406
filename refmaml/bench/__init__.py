"""How fast it is: kernels beside the machine's limits, whole meta-gradients beside other libraries.

Nothing below the command line imports this package.
"""
