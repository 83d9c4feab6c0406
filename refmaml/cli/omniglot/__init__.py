"""The Omniglot table: published results, their protocols, and the code that runs them
again.
"""
