"""Can runs be kept there? A folder, a web server or a database, asked before anything is recorded.

Nothing that stays is written. What opens and fills a store is tracking.py.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pairprobe import disk
from pairprobe.errors import StoreError

WEB = ("http://", "https://")
DATABASES = ("postgresql", "mysql", "mssql")
ALLOWED = "Allowed: sqlite:////path/mlflow.db, postgresql+psycopg2://…, mysql…, mssql…, http://server:5000"
IN_A_FILE = "keep runs in a file: tracking.uri=sqlite:///mlflow.db"
ELSEWHERE = "keep runs elsewhere: PAIRPROBE_HOME=/path"
ENOUGH_DISK = 200_000_000  # bytes
PATIENCE = 5  # seconds a server may take to answer


def folder_problems(artifacts: Path, database: Path | None) -> list[StoreError]:
    """Why artifacts, and the file of a sqlite database, cannot be written."""
    found: list[StoreError] = []
    folders = [artifacts]
    if database:
        folders.append(database.parent)
        if database.is_dir():
            found.append(StoreError(f"{database} is a folder.", "Name a file: tracking.uri=sqlite:////path/mlflow.db"))
        elif database.exists() and not os.access(database, os.W_OK):
            found.append(StoreError(f"{database} is read-only.", f"chmod u+w {database}"))
    for folder in dict.fromkeys(folders):
        reason = disk.unwritable(folder)
        if reason:
            found.append(StoreError(f"{folder} cannot be written ({reason}).", f"Make it writable, or {ELSEWHERE}"))
    if not found:
        free = shutil.disk_usage(disk.existing(artifacts)).free
        if free < ENOUGH_DISK:
            found.append(
                StoreError(
                    f"the disk of {artifacts} has {free / 1e6:.0f} MB free; a run needs up to "
                    f"{ENOUGH_DISK / 1e6:.0f} MB.",
                    f"Free some, or {ELSEWHERE}",
                )
            )
    return found


def server_problems(uri: str, shown: str) -> list[StoreError]:
    """Why a tracking server cannot be used; shown: its address without its password."""
    import requests

    try:
        status = requests.get(f"{uri.rstrip('/')}/health", timeout=PATIENCE).status_code
    except (requests.RequestException, ValueError) as error:
        said = f"does not answer ({_reason(error)})"
    else:
        if status < 500:  # what it refuses shows when it is asked
            return []
        said = f"answers, but is broken (status {status})"
    return [StoreError(f"the tracking server {shown} {said}.", f"Start it, or {IN_A_FILE}")]


def database_problems(uri: str, shown: str, connect: Callable[[], object]) -> list[StoreError]:
    """Why a database server cannot be used; shown: its address without its password; connect: logs in, or raises."""
    try:
        address = urlsplit(uri)
        if address.hostname and address.port:  # first, since a driver may wait for minutes
            socket.create_connection((address.hostname, address.port), timeout=PATIENCE).close()
        connect()
    except ImportError as error:
        return [
            StoreError(
                f"the database {shown} needs a driver that is not installed ({error}).",
                f"Install it, for PostgreSQL with: pip install psycopg2-binary   or {IN_A_FILE}",
            )
        ]
    except Exception as error:  # each driver has its own
        return [
            StoreError(f"the database {shown} cannot be connected to ({_reason(error)}).", f"Mend it, or {IN_A_FILE}")
        ]
    return []


def _reason(error: Exception) -> str:
    """What went wrong in few words; never the address, which may hold a password."""
    text = str(error)
    kinds = {
        "refused": "connection refused", "timed out": "it timed out", "resolve": "no such host",
        "not known": "no such host", "authentication failed": "it does not accept this user and password",
        "does not exist": "it knows no such user or database",
    }  # fmt: skip
    return next((said for mark, said in kinds.items() if mark in text), type(error).__name__)


def user() -> str:
    """Who records."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid())


def without_password(text: str) -> str:
    """The text with the passwords of all addresses in it left out."""
    return re.sub(r"(//[^/@:\s]*:)[^/@\s]*@", r"\1…@", text)


def option(uri: str | None) -> str:
    """What a command must be told, so that it finds a store which only the configuration named; '' for none."""
    return f" --tracking-uri {shlex.quote(without_password(uri))}" if uri else ""


def slug(name: str) -> str:
    """An experiment's folder under mlruns/; '.' and '..' would be other folders."""
    slug = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return slug if slug.strip(".") else "_" * len(slug)


def next_step(text: str) -> str:
    """What to do about an error of MLflow's that says this; '' where it is not known."""
    if "database is locked" in text:
        return "Another process holds it; try again, or use a server: tracking.uri=http://…"
    if "disk is full" in text or "No space left" in text:
        return "Free some disk, or keep runs elsewhere: tracking.uri=sqlite:////path/mlflow.db"
    if "readonly" in text or "read-only" in text.lower():
        return "Make the store writable, or keep runs elsewhere: tracking.uri=sqlite:////path/mlflow.db"
    if "out-of-date database schema" in text:
        return "It was made by another MLflow: mlflow db upgrade sqlite:///mlflow.db (keep a copy first)."
    return ""


def wanted(like: Mapping[str, str], unlike: Mapping[str, str]) -> str:
    """MLflow's filter for finished runs with the tags `like`, and with other values of the tags `unlike`."""
    said = ["attributes.status = 'FINISHED'"]
    for sign, tags in (("=", like), ("!=", unlike)):
        for key, value in tags.items():
            quote = '"' if "'" in value else "'"
            said.append(f"tags.{key} {sign} {quote}{value}{quote}")
    return " and ".join(said)
