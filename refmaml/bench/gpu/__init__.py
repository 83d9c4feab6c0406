"""What a GPU takes: its own limits, kernels one by one beside them, and whole meta-gradients, by the device's clock.

Everything here asks a device object (device.py) for arrays, launches and times, so that the tests can bring a stand-in.
"""
