"""Measurements on a GPU: its limits, kernels one by one, whole meta-gradients.

All code here uses a device object (device.py) for arrays, launches and times, so that
the tests can pass a stand-in.
"""
