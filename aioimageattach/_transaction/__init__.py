"""Put and delete files consistently with the rows that reference them, across the transactions of a session."""
