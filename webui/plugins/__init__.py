"""Extensions: found, loaded, kept apart from the program and from each other."""
