"""The example jobs, each validated against a published result."""
