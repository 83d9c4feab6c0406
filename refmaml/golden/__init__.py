"""Golden vectors: inputs, every intermediate and the meta-gradient of every method, for implementations in any language.

    problems.py        which nets, tasks and methods; how inputs are drawn
    intermediates.py   what a method leaves on its way, array by array, and what each array means
    passes.py          what every layer leaves of the four passes
    files.py           the folder: .npz files and a manifest with their sha256, written whole, read with suspicion
    check.py           a folder's values computed again from its inputs

docs/golden.md is the guide for those who read a folder.
"""
