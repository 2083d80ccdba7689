"""What happens inside a job: the farm driver, its engines, the ranks of a program."""
