"""Pictures as PIL images and numpy arrays: reading, masks, geometry, metadata, storage. Never imports torch."""
