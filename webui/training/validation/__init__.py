"""How good what was trained is, measured on photos that it was not trained on, and at which step it was best."""
