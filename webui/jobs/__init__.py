"""A durable queue and the one worker that owns the device. Knows nothing of images."""
