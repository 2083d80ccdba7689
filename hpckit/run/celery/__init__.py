"""Farms whose workers take their batches from a broker: the two ends of the engine celery."""
