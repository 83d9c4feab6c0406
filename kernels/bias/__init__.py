"""A number per channel, added in place."""
