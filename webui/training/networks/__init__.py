"""What is trained: adapters on the live networks, new words, or the networks themselves."""
