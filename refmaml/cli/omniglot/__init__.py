"""The Omniglot table: what was published, how each row was run, and one harness that runs them all again."""
