"""New model files from old ones: convert, merge, bake, extract, resize. In memory of one tensor at a time."""
