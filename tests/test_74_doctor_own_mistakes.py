"""Forty mistakes on nets of PyTorch that refmaml has no layers for, by their names."""

import pytest

import refmaml as rm

pytestmark = pytest.mark.frameworks("torch")
NAMES = ("residual", "lstm", "attention")
FEW = ("Hessian twice", "last two steps", "a weight stays", "an outer step a task")


def own_net(name):
    """(loss, arguments of check_meta_gradient, names of the parameters)."""
    from own_loss_nets import seeded
    from torch.func import functional_call
    from torch.nn import functional as F

    net, batch = seeded(name)

    def loss(params, x, y):
        return F.cross_entropy(functional_call(net, params, (x,)), y)

    own = {"loss": F.cross_entropy, "params": net, "batch": batch, "framework": "torch"}
    return loss, own, [n for n, _ in net.named_parameters()]


def diagnosis(loss, own, changes):
    """The diagnosis of a variant of MAML, in float64."""
    from own_loss_mistakes import LR, STEPS, maml

    report = rm.check_meta_gradient(
        maml(loss, **changes), rm.MAML(LR, STEPS), repeats=0, precision="float64", **own
    )
    assert report.verdict == "wrong"
    return report.diagnosis


@pytest.mark.parametrize("name", NAMES)
def test_right_code_is_right_to_1e_10(name):
    from own_loss_mistakes import LR, STEPS, maml

    loss, own, _ = own_net(name)
    report = rm.check_meta_gradient(maml(loss), rm.MAML(LR, STEPS), repeats=1, **own)
    assert report.ok and report.results[0].worst.error < 1e-10


@pytest.mark.parametrize("label", FEW)
def test_a_few_mistakes_are_named(label):
    from own_loss_mistakes import variants

    loss, own, names = own_net("lstm")
    changes, words = variants(names)[label]
    assert words in diagnosis(loss, own, changes)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_at_least_25_mistakes_are_named_on_each_net_and_none_falsely(name):
    from own_loss_mistakes import variants

    loss, own, names = own_net(name)
    table = variants(names)
    found = {label: diagnosis(loss, own, changes) for label, (changes, _) in table.items()}
    named = [label for label, text in found.items() if table[label][1] in text]
    others = {label: found[label] for label in found if label not in named}
    assert len(named) >= 25
    assert all(text.startswith("no mistake of the dictionary") for text in others.values()), others
