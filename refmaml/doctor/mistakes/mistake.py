"""The type `Mistake`, and fix lines that several mistakes share.

A factor on the whole gradient (a sum in place of a mean, a missing 1 / lambda, a sign)
is no mistake of its own: every candidate is compared up to one factor, and
scale_factors.py names the factor."""

from typing import Any, NamedTuple

KERNEL_FIELDS = {"kernels", "query_kernels", "product"}


class Mistake(NamedTuple):
    """One known mistake.

    row      the mistake's number; variants of one mistake share it
    name     what is wrong, in a few words
    changes  {field of Loop or Implicit: its wrong value}; or a function case -> that
             dict, or None where the mistake cannot occur on the case
    fix      {framework: what to do}; the key "" is for all other frameworks
    common   whether it is also tried together with each other mistake
    """

    row: str
    name: str
    changes: Any
    fix: dict = {}
    common: bool = False

    @property
    def needs_kernels(self):
        """Whether the mistake is in refmaml's own kernels or layers, or needs a product
        that only its nets have."""
        return isinstance(self.changes, dict) and bool(set(self.changes) & KERNEL_FIELDS)

    def changes_on(self, case):
        """{field: value} on this case, or None where the mistake cannot occur."""
        return self.changes(case) if callable(self.changes) else self.changes

    def fix_for(self, framework):
        """What to do about the mistake in a framework."""
        return self.fix.get(framework, self.fix.get("", ""))


def fix(text="", **by_framework):
    """{framework: what to do}: `text` for every framework without a text of its own."""
    return {"": text, **by_framework}


HESSIAN = fix("compare the Hessian-vector product with a difference of two gradients")
ROLES = fix("adapt on x_support, y_support; measure the query loss on x_query, y_query")
