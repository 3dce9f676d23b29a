#!/usr/bin/python3
"""An application server that keeps its sessions in Redis: app.py NAME PORT REDIS-HOST."""

import re
import secrets
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

NAME, PORT = sys.argv[1], int(sys.argv[2])
SESSIONS = redis.Redis(host=sys.argv[3], socket_timeout=2)
# Seconds after which a session that is not used is forgotten.
AGE = 1800


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer("ok", None)
        sent = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        session = sent.value if sent and re.fullmatch("[0-9a-f]{32}", sent.value) else None
        # Ids that the server did not give are not taken.
        if not session or not SESSIONS.exists(f"session:{session}"):
            session = secrets.token_hex(16)
        key = f"session:{session}"
        visits = SESSIONS.hincrby(key, "visits", 1)
        SESSIONS.expire(key, AGE)
        self.answer(f"{NAME} {visits}", session)

    def answer(self, text, session):
        body = f"{text}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if session:
            cookie = f"session={session}; Path=/; HttpOnly; SameSite=Lax"
            self.send_header("Set-Cookie", cookie)
            self.send_header("Cache-Control", "private")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


Server(("", PORT), Handler).serve_forever()
