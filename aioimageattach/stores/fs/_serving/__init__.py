"""How files are served, apart from ASGI messages."""
