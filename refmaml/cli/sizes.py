"""Sizes that a configuration asks for, checked before anything of that size is
allocated.

A checkpoint of a few kilobytes can state any sizes in its configuration. So the number
of parameters is compared with the arrays of the file first, and nothing larger than
these is allocated until then.
"""

import os
from dataclasses import fields, replace
from math import inf, prod

import numpy as np

from refmaml.cli.presets import IMAGES
from refmaml.errors import expect


def check_vector_sizes(method, net, now, path):
    """Raise ArgumentError unless `method` on `net` has as many meta-parameters as
    `now`.

    net   its structure is enough: no array of its size has been allocated
    now   the Progress that was read from the file `path`
    """
    size, found = net.num_params, len(now.meta)

    def require(condition, expected):
        expect(
            condition,
            path,
            f"{expected} meta-parameters, as its configuration has",
            f"{found} meta-parameters of {now.meta.dtype}",
        )

    require(size <= found, f"{size} or more")  # every method's begin with those of the net
    # From here on an array of `size` numbers is no larger than the file.
    start = np.zeros(size, now.meta.dtype)
    if any(field.name == "inner_steps" for field in fields(method)):
        # Each inner step adds the same number: none, or those of a learned step size.
        alpha = method.inner_lr[0] if isinstance(method.inner_lr, tuple) else method.inner_lr
        shorter = [replace(method, inner_steps=k, inner_lr=alpha) for k in (1, 2)]
        one, two = (len(method.init(net, start)) for method in shorter)
        size = one + (method.inner_steps - 1) * (two - one)
    else:
        size = len(method.init(net, start))
    require(size == found, str(size))


def check_memory(config, net, tasks):
    """Raise ArgumentError if the examples of `tasks` tasks exceed the machine's memory.

    Without this check the operating system might grant the memory, and end the process
    when it is used.
    """
    classes = config["n_way"] if config["data"] in IMAGES else 1
    shots = max(config["k_shot"], config["train_shots"] or 0)
    numbers = tasks * classes * (shots + config["k_query"]) * prod(net.input_shape)
    if config["data"] == "linear":
        numbers += config["dim"] * config["rank"]  # what the tasks have in common
    needed, available = 8 * numbers, physical_memory()  # sampled in float64
    expect(
        needed <= available,
        "configuration",
        lambda: f"tasks that fit into {available / 1e9:.0f} GB of memory",
        lambda: (
            f"{tasks} tasks of {classes} x {shots} support and {classes} x {config['k_query']} "
            f"query examples, which take {needed / 1e9:.0f} GB"
        ),
    )


def physical_memory():
    """Bytes of memory of this machine; infinity where the system does not state it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return inf
