"""The face stays the person's own after the body was changed."""
