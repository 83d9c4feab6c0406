"""Max-pooling and average pooling over windows."""
