"""The story of one picture: the request, the run, the result."""
