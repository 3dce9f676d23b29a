#!/usr/bin/python3
"""An application server: app.py NAME PORT DATABASE-HOST.

GET anything          who answers: this server, and the database that it asked
POST .../orders/ID    writes an order, once
"""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

NAME, PORT, HOST = sys.argv[1], int(sys.argv[2]), sys.argv[3]
# A database that is drained keeps its connections for as long as they last.
MOST_AGE = 1.0
GONE = (psycopg2.OperationalError, psycopg2.InterfaceError)


class Database(threading.local):
    """A connection for each thread, renewed when it is old or dead."""

    connection = None

    def cursor(self):
        if self.connection and time.monotonic() < self.until:
            try:
                cursor = self.connection.cursor()
                # Nothing is sent over a connection that is dead already.
                cursor.execute("SELECT 1")
                return cursor
            except GONE:
                pass
        self.close()
        # One that is dead and not out yet refuses: another try may go to another one.
        for left in reversed(range(40)):
            try:
                self.connection = psycopg2.connect(
                    host=HOST, user="postgres", dbname="postgres", connect_timeout=2
                )
                self.connection.autocommit = True
                cursor = self.connection.cursor()
                cursor.execute("SHOW cluster_name")
                self.name = cursor.fetchone()[0]
                self.until = time.monotonic() + MOST_AGE
                return cursor
            except GONE:
                self.close()
                if not left:
                    raise
                time.sleep(0.05)

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


database = Database()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, "ok")
        # Reading twice does no harm.
        for _ in range(3):
            try:
                database.cursor().execute("SELECT count(*) FROM orders")
                return self.answer(200, f"{NAME} {database.name}")
            except GONE:
                database.close()
        self.answer(503, "no database")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        order = self.path.rpartition("/")[2]
        try:
            cursor = database.cursor()
        except GONE:
            return self.answer(503, "no database")
        try:
            # It takes its time.
            cursor.execute("INSERT INTO orders SELECT %s FROM pg_sleep(0.2)", (order,))
            self.answer(200, f"{NAME} {database.name}")
        except GONE:
            # Written or not: nobody knows, so it is not tried again.
            name = database.name
            database.close()
            self.answer(500, f"lost with {name}")

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


Server(("", PORT), Handler).serve_forever()
