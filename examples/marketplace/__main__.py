"""Start the marketplace, with the options of uvicorn. Environment variables determine where rows and files are kept."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys

import uvicorn

from .models import create_engine, create_tables

if __name__ == "__main__":
    data = os.environ.setdefault("DATA_DIR", f"{os.path.dirname(__file__)}/data")
    os.makedirs(data, exist_ok=True)
    os.environ.setdefault("DATABASE_URL", f"sqlite+aiosqlite:///{data}/marketplace.sqlite")
    os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe())  # the same in all worker processes
    asyncio.run(create_tables(create_engine(os.environ["DATABASE_URL"])))
    uvicorn.main(["examples.marketplace.app:create_app", "--factory", *sys.argv[1:]])
