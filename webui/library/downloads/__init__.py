"""Getting models from the network: from an address that a user typed to a checked file in the right folder."""
