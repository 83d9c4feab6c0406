"""A user's nn.Module: its parameters by name, its precision, its buffers."""

from contextlib import contextmanager

import torch
from torch.func import functional_call


class UserModule:
    """The user's module, which is put back as it was by `restore`.

    forward(params, x) calls it with other parameters, torch.func.functional_call; x is
    a tuple of its arguments, or the only one.
    changed   the names of the buffers that a call has changed
    """

    def __init__(self, module):
        self.module, self.changed = module, {}
        self.originals = {
            name: tensor.detach().clone()
            for name, tensor in self.tensors()
        }
        self.dtype = None

    def tensors(self):
        """(name, tensor) of all parameters and buffers."""
        yield from self.module.named_parameters()
        yield from self.module.named_buffers()

    @property
    def params(self):
        """{name: tensor}."""
        return {name: p.detach() for name, p in self.module.named_parameters()}

    def forward(self, params, x):
        """The module's outputs at other parameters."""
        return functional_call(self.module, params, x if isinstance(x, tuple) else (x,))

    def set_precision(self, dtype):
        """Every floating-point parameter and buffer in a dtype, from the original."""
        if dtype == self.dtype:
            return
        for name, tensor in self.tensors():
            original = self.originals[name]
            if original.is_floating_point():
                tensor.data = original.to(dtype, copy=True)
        self.dtype = dtype

    @contextmanager
    def in_precision(self, dtype):
        """The module in a dtype; its buffers are put back after the block."""
        self.set_precision(dtype)
        before = {name: b.detach().clone() for name, b in self.module.named_buffers()}
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in self.module.named_buffers():
                    if name in before and not torch.equal(buffer, before[name]):
                        self.changed[name] = True
                        buffer.copy_(before[name])

    def restore(self):
        """Every tensor as the user had it, bit for bit."""
        for name, tensor in self.tensors():
            tensor.data = self.originals[name]
        self.dtype = None
