"""A meta-gradient of the user's own net and loss.

setup.py             from loss=, params=, batch= to cases
user_loss.py         calling the loss
trees.py             nested dicts, lists and tuples of arrays
parameters.py        the user's parameters as one flat vector
batch_forms.py       the forms in which a batch may come; tasks.py: its tasks
model.py             the loss as a model that the methods take in place of a net
torch_functions.py, jax_functions.py, numpy_functions.py
                     loss, gradient and product of one task
torch_modules.py     the user's nn.Module
random_draws.py      losses that draw random numbers
differences.py       derivatives by differences
second_derivatives.py, torch_second_derivatives.py
                     whether the framework's derivatives are right, and where not
case.py, conditioning.py, mistakes.py
                     what the doctor's other modules ask of a case
shared_statistics.py statistics of a norm over too many examples
single_task.py       one task alone, which excludes candidates at 1/T of their cost
"""
