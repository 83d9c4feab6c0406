"""Golden vectors for implementations of meta-gradients in any language.

They hold inputs, every intermediate value and the meta-gradient of every method.

problems.py        the nets, tasks and methods; how inputs are drawn
intermediates.py   the intermediate arrays of a method, and the meaning of each
passes.py          the four passes of every layer
files.py           the folder: .npz files and a manifest with their sha256; atomic
                   writes, checked reads
check.py           recomputes a folder's values from its inputs

docs/golden.md is the guide for readers of a folder.
"""
