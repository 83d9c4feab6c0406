"""Nets from modules of PyTorch.

conversion.py   from_torch: the net with the module's names, compared with the module
tracing.py      the layers that a module's forward calls, in order, by torch.fx
layer_table.py  the layer of refmaml for one layer of torch.nn
comparison.py   the outputs of module and net on the same numbers

PyTorch is imported where it is used.
"""

from refmaml.torch_modules.conversion import from_torch

__all__ = ["from_torch"]
