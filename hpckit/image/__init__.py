"""Images: their locks, how they are built, and what is in them."""
