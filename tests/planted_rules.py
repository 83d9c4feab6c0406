"""The update rules that errors are planted in, and how."""

import refmaml as rm

SGD = rm.SGD(momentum=0.9, dampening=0.2, weight_decay=0.05)
NESTEROV = rm.SGD(momentum=0.8, nesterov=True, weight_decay=0.03)
ADAM = rm.Adam((0.8, 0.95), eps=0.01, eps_root=0.001, weight_decay=0.05)
ADAMW = rm.AdamW((0.8, 0.95), eps=0.01, eps_root=0.001, weight_decay=0.1)
RMSPROP = rm.RMSprop(0.9, eps=0.01, eps_root=0.01, weight_decay=0.02, momentum=0.7, centered=True)
ADAGRAD = rm.Adagrad(0.1, 0.02, 0.1, eps=0.01, eps_root=0.001)
BY_NORM = rm.Clip(rm.SGD(momentum=0.9), norm=0.2)
PER_TENSOR = rm.Clip(rm.SGD(momentum=0.9), norm=0.05, per_tensor=True)
BY_VALUE = rm.Clip(rm.SGD(weight_decay=0.1), value=0.05)


def wrong(rule, **members):
    """The same rule with some of its functions or flags replaced."""
    kind = type(rule)
    fields = {name: getattr(rule, name) for name in kind.__dataclass_fields__}
    return type(f"Wrong{kind.__name__}", (kind,), members)(**fields)
