"""Meta-gradients of policies: reinforcement learning in place of a labelled set.

gaussian_density.py   log N(a; mu, s): four passes
gaussian_policy.py    a net for the mean, and its log-probabilities: four passes
kl.py                 the divergence between two policies, and Fisher products
trajectories.py       a batch of trajectories, returns, advantages
baseline.py           the linear baseline
estimators.py         naive surrogate, LVC, DiCE and the score, of log-probabilities
estimated_return.py   an estimator on the trajectories of a policy
meta_gradient.py      the meta-gradient through inner steps of policy gradients
trust_region.py       the outer step of TRPO
"""

from refmaml.rl.baseline import LinearBaseline
from refmaml.rl.estimated_return import EstimatedReturn
from refmaml.rl.estimators import LVC, DiCE, NaiveSurrogate, Score
from refmaml.rl.gaussian_policy import GaussianPolicy
from refmaml.rl.kl import PolicyKL
from refmaml.rl.meta_gradient import PolicyMAML
from refmaml.rl.trajectories import Trajectories
from refmaml.rl.trust_region import TrustRegion

__all__ = [
    "DiCE",
    "EstimatedReturn",
    "GaussianPolicy",
    "LVC",
    "LinearBaseline",
    "NaiveSurrogate",
    "PolicyKL",
    "PolicyMAML",
    "Score",
    "Trajectories",
    "TrustRegion",
]
