"""One module for each library, each with its LIBRARY: how the library itself would be
asked for each method's meta-gradient.

A function is what the doctor examines: fn(problem, params, batch) -> {name: gradient},
the mean over tasks. The library's own public calls do all differentiation; what is ours
is the order of calls that its documentation shows.
"""
