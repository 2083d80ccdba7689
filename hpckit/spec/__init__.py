"""What a user writes, as frozen models: jobs, resources, parameters, sweeps."""
