"""The kinds of operations, and the columns of a program's table (program.py)."""

from refmaml.kernels.whole_net.operations import (
    Activate,
    Average,
    Convolution,
    Flatten,
    Fork,
    GroupNorm,
    Matrix,
    MaxPool,
    NormActPool,
    Sum,
)

KINDS = (
    *(Convolution, Matrix, NormActPool, Activate, MaxPool, Average, Flatten),
    *(GroupNorm, Sum, Fork),
)
(CONVOLUTION, MATRIX, NORM_ACT_POOL, ACTIVATE, MAX_POOL, AVERAGE, FLATTEN, GROUP_NORM, SUM,
 FORK) = range(len(KINDS))  # fmt: skip

# The columns of the table.
#   KIND          an index into KINDS
#   X Y DX DY     where in `work` input, output and their adjoints begin; X is ABSENT
#                 where the input is that of the net
#   X2 DX2        of a Sum: the second input and its adjoint; DX2 of a Fork: the adjoint
#                 of its second output
#   CONSTANT      1 if the input (of a Sum: the second one) has no tangent: it is that
#                 of the net, perhaps flattened
#   C .. WO       extents of input (C, H, W) and output (O, Ho, Wo)
#   WEIGHT BIAS   where the parameters begin (of a norm: gamma and beta)
#   KH .. SW      window and stride; KH of a GroupNorm: numbers of gamma per channel
#   GROUPS        of a convolution or a GroupNorm; 1 otherwise
#   S             where 1 / sqrt(var + eps) of a norm begins in `work`
#   WINNERS       where the winners of max-pooling begin
#   BIAS_CANCELS  1 if a batch-norm follows, which subtracts the bias again
#   FUNCTION      the function of an Activate
#   LISTS         where the offset lists begin in `lists`: one of windows; or of a
#                 product FORWARD, BACKWARD_X and BACKWARD_W, then FILTER_ORDERS; or of
#                 a GroupNorm the block of its rows, and in the place of FILTER_ORDERS
#                 the orders of gamma
# fmt: off
(KIND, X, Y, DX, DY, X2, DX2, CONSTANT, C, H, W, O, HO, WO, WEIGHT, BIAS, KH, KW, SH, SW, GROUPS,
 S, WINNERS, BIAS_CANCELS, FUNCTION, LISTS) = range(26)
# fmt: on
FILTER_ORDERS = 3
COLUMNS = LISTS + FILTER_ORDERS + 1
