"""A site with a few synchronous workers that keeps serving pages and reads while writes wait for the database.

Writes go to the primary, reads to the standbys. A write that cannot be made now is answered 503, and the worker is free again:
gaiola.toml lets no more than two of the four workers of a server wait for the primary at a time.
"""

import os
import time

import psycopg

PRIMARY = os.environ["DATABASE_URL"]
STANDBYS = os.environ["DATABASE_REPLICA_URL"]
# For how many seconds a read is retried.
READ_LIMIT = 3


def application(environ, start_response):
    """Answers one request (PEP 3333)."""
    try:
        status, text = answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    except psycopg.OperationalError:
        status, text = "503 Service Unavailable", "not now\n"
    headers = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")]
    if status.startswith("503"):
        headers.append(("Retry-After", "5"))
    start_response(status, headers)
    return [text.encode()]


def answer(method, path):
    if path == "/up":
        return "200 OK", "up\n"
    if path == "/page":
        return "200 OK", "a page that needs no database\n"
    if (method, path) == ("GET", "/entries"):
        return "200 OK", f"{count()} entries\n"
    if (method, path) == ("POST", "/entries"):
        add()
        return "201 Created", "kept\n"
    return "404 Not Found", "no such page\n"


def count():
    """Reads from a standby, or from the primary while there is none: the port leads there by itself.

    A server that is lost or promoted ends its sessions, and it takes a moment until the port leads to another one: a read does no
    harm when it is tried again.
    """
    deadline = time.monotonic() + READ_LIMIT
    while True:
        try:
            with psycopg.connect(STANDBYS, connect_timeout=2) as session:
                return session.execute("SELECT count(*) FROM entries").fetchone()[0]
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def add():
    """Writes to the primary. What failed is not tried again: it may have been carried out."""
    with psycopg.connect(PRIMARY, connect_timeout=2) as session:
        session.execute("INSERT INTO entries DEFAULT VALUES")
