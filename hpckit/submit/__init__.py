"""What starts a job somewhere: a launcher here, a scheduler on a cluster."""
