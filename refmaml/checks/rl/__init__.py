"""Which meta-gradient of a policy a function computes.

probe.py        frozen batches of trajectories, and what a function receives of them
forms.py        inner objectives, right and wrong, as functions of log-probabilities
recipes.py      meta-gradients: a form, and at most two mistakes
answers.py      fitting an answer: an overall factor and the score term's factors
words.py        what is said of a recipe that fits
"""
