"""Small nets with residual layers, one inside another."""

import refmaml as rm


def block(C, O):
    """A convolution, batch-norm, activation; a convolution, batch-norm."""
    branch = [rm.Conv2d(C, O, 3, padding=1), rm.BatchNorm2d(O), rm.LeakyReLU(0.1)]
    return rm.Residual(branch, [rm.Conv2d(C, O, 1, bias=False), rm.BatchNorm2d(O)])


def residual_net(kernel_set=None, first=()):
    """Two blocks, one of them inside another one, with a layer behind each."""
    nested = rm.Residual(
        [rm.Residual([rm.Conv2d(3, 3, 3, padding=1), rm.Tanh()]), rm.BatchNorm2d(3)]
    )
    layers = [*first, block(2, 3), rm.LeakyReLU(0.1), rm.MaxPool2d(2), nested, rm.SpatialMean()]
    return rm.Sequential([*layers, rm.Linear(3, 3)], rm.CrossEntropy(), (2, 6, 5), kernel_set)
