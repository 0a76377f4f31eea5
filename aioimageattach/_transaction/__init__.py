"""Files that follow their rows through the transactions of a session."""
