"""One module for each library, with its LIBRARY: the library's own meta-gradients.

A function is what the doctor examines: fn(problem, params, batch) -> {name: gradient},
the mean over tasks. The library's own public calls do all differentiation; what is ours
is the order of calls that its documentation shows.
"""
