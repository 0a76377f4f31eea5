"""The parts of serving files that do not depend on ASGI messages."""
