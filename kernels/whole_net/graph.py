"""The operations of a net as nodes that say which values they read.

Operations in order read each the value before it. A Residual has two sequences of them,
which begin at a Fork and end in a Sum. A value has one reader, but for the value of a
Fork, which has two. A Fork that would only hand the net's input on is left out: it
would have no adjoint to add.
"""

from typing import NamedTuple

from refmaml.kernels.activation.functions import LEAKY
from refmaml.kernels.whole_net.operations import (
    ABSENT,
    Activate,
    Convolution,
    Flatten,
    Fork,
    GroupNorm,
    Matrix,
    NormActPool,
    Residual,
    Sum,
)

PRODUCTS, NORMS = Convolution | Matrix, NormActPool | GroupNorm


class Node(NamedTuple):
    """An operation and what it reads.

    source    the node whose value it reads; ABSENT: the net's input
    of_shortcut  whether it reads the second output of a Fork
    second    the second node that a Sum reads; ABSENT: the net's input
    constant  whether its input (of a Sum: its second input) is the net's input, or that
              flattened: it has no tangent and needs no adjoint
    """

    op: tuple
    source: int
    of_shortcut: bool
    second: int
    constant: bool


def nodes_of(operations):
    """The nodes of a net, each after those that it reads."""
    nodes = []
    append_sequence(nodes, operations, ABSENT, False)
    return nodes


def append(nodes, op, source, of_shortcut=False, second=ABSENT):
    """Adds a node; its index."""
    constant = is_constant(nodes, second if isinstance(op, Sum) else source)
    nodes.append(Node(op, source, of_shortcut, second, constant))
    return len(nodes) - 1


def is_constant(nodes, source):
    """Whether a value is the net's input, or that flattened."""
    return source == ABSENT or (isinstance(nodes[source].op, Flatten) and nodes[source].constant)


def append_sequence(nodes, operations, source, of_shortcut):
    """Adds operations in order; the index of the last."""
    for op in operations:
        if isinstance(op, Residual):
            source = append_residual(nodes, op, source, of_shortcut)
        else:
            source = append(nodes, op, source, of_shortcut)
        of_shortcut = False
    return source


def append_residual(nodes, op, source, of_shortcut):
    """Adds a Fork, branch, shortcut and a Sum; the index of the Sum."""
    if not is_constant(nodes, source):
        source = append(nodes, Fork(op.inputs), source, of_shortcut)
    ends = []
    for number, part in enumerate((op.branch, op.shortcut)):
        if part and isinstance(part[0], NORMS):  # it overwrites its input: a copy
            part = Activate(op.inputs, LEAKY, 1.0), *part
        ends.append(append_sequence(nodes, part, source, number == 1))
    return append(nodes, Sum(op.outputs), ends[0], second=ends[1])


def readers(nodes):
    """For each node the one that reads its value; None for a Fork and at the end."""
    found = [None] * len(nodes)
    for node in nodes:
        for source in (node.source, *([node.second] if isinstance(node.op, Sum) else [])):
            if source != ABSENT and not isinstance(nodes[source].op, Fork):
                found[source] = node
    return found


def changes_its_adjoint(nodes, i):
    """Whether the backward pass of node i changes its dy.

    A Sum and its inputs may share dy.
    """
    if isinstance(nodes[i].op, Sum):
        ends = nodes[i].source, nodes[i].second
        return any(end != ABSENT and changes_its_adjoint(nodes, end) for end in ends)
    return isinstance(nodes[i].op, NORMS) and nodes[i].op.slope != 1


def value_is_free(op):
    """Whether nothing needs the value of an operation but its reader."""
    return isinstance(op, PRODUCTS | Sum) or (isinstance(op, NORMS) and op.slope == 1)
