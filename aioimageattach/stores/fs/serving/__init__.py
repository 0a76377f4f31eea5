"""How the files of a store are served, apart from the messages of ASGI."""
