"""A user's nn.Module: its parameters by name, its precision, its buffers."""

from contextlib import contextmanager

import torch
from torch.func import functional_call


class UserModule:
    """The user's module, which `restore` puts back as it was.

    forward(params, x) calls it with other parameters, torch.func.functional_call; x is
    a tuple of its arguments, or the only one.
    changed   names of the buffers that a call has changed

    While a check runs, the module's parameters have the precision of the pass, and each
    pass has copies of the buffers in the place of the user's: a backward pass may need
    a buffer as it was, so that none may be written back.
    """

    def __init__(self, module):
        self.module, self.changed, self.dtype = module, {}, None
        self.parameters = {n: p.detach().clone() for n, p in module.named_parameters()}
        self.buffers = {
            (f"{path}.{name}" if path else name): (owner, name, buffer)
            for path, owner in module.named_modules()
            for name, buffer in owner.named_buffers(recurse=False)
        }

    @property
    def params(self):
        """{name: tensor}, copies."""
        return dict(self.parameters)

    def forward(self, params, x):
        """The module's outputs at other parameters."""
        return functional_call(self.module, params, x if isinstance(x, tuple) else (x,))

    def set_precision(self, dtype):
        """Every floating-point parameter in a dtype, from the original."""
        if dtype != self.dtype:
            for name, p in self.module.named_parameters():
                p.data = cast(self.parameters[name], dtype)
        self.dtype = dtype

    @contextmanager
    def in_precision(self, dtype):
        """The module in a dtype, with copies of its buffers inside the block."""
        self.set_precision(dtype)
        copies = {}
        for full, (owner, name, buffer) in self.buffers.items():
            copies[full] = owner._buffers[name] = cast(buffer, dtype)
        try:
            yield
        finally:
            for full, (owner, name, buffer) in self.buffers.items():
                if not torch.equal(owner._buffers[name], cast(buffer, dtype)):
                    self.changed[full] = True
                owner._buffers[name] = buffer

    def restore(self):
        """Every parameter as the user had it, bit for bit."""
        for name, p in self.module.named_parameters():
            p.data = self.parameters[name]
        self.dtype = None


def cast(tensor, dtype):
    """A copy of a tensor, in a dtype where it holds real numbers."""
    return tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
