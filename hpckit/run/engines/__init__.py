"""What executes the batches of a farm: each engine is a concurrent.futures.Executor."""
