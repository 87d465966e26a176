"""Pure decisions, and the actors that carry them to the bus and the log."""
