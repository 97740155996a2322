"""What is trained on: photos, captions, masks, sizes. Imports no torch."""
