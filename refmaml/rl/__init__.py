"""Meta-gradients of policies: reinforcement learning in place of a labelled set.

gaussian_density.py   log N(a; mu, s): four passes
gaussian_policy.py    a net for the mean, and its log-probabilities: four passes
kl.py                 the divergence between two policies, and Fisher products
trajectories.py       a batch of trajectories, returns, advantages
baseline.py           the linear baseline
"""

from refmaml.rl.baseline import LinearBaseline
from refmaml.rl.gaussian_policy import GaussianPolicy
from refmaml.rl.kl import PolicyKL
from refmaml.rl.trajectories import Trajectories

__all__ = ["GaussianPolicy", "LinearBaseline", "PolicyKL", "Trajectories"]
