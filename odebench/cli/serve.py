"""`odebench leaderboard --serve`: the page and its result files on 127.0.0.1, for one's own browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from odebench.errors import UsageError

HOST, PORT = "127.0.0.1", 8000


class _Server(ThreadingHTTPServer):
    """Serves one page at / and the files that are named, and nothing else."""

    daemon_threads = True
    # On Windows a second server would silently share a port that is taken; it must be an error.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, port: int, html: str, files: Mapping[str, Path]) -> None:
        self.html, self.files = html.encode(), files
        super().__init__((HOST, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """The page, a result file, or 404."""
        path = urlsplit(self.path).path
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(403)  # by another name for this address a page of somebody else could ask
        elif path == "/":
            self._send(self.server.html, "text/html; charset=utf-8")
        elif path in self.server.files:
            try:
                self._send(self.server.files[path].read_bytes(), "application/json")
            except OSError:
                self.send_error(404)
        else:
            self.send_error(404)

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def _has_screen() -> bool:
    """Whether a browser would open in a window; one in the terminal would hide the address."""
    named = any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
    return named or sys.platform in ("darwin", "win32")


def serve(html: str, files: Mapping[str, Path], *, port: int | None, browser: bool) -> None:
    """Serves the page on 127.0.0.1, prints its address and opens it, until interrupted. `files` are result files by
    their path in the address.

    Without a port it takes PORT, or any free one where that is taken. Raises UsageError where a given port is taken.
    """
    try:
        server = _Server(PORT if port is None else port, html, files)
    except OSError as error:
        if port is not None:
            raise UsageError(
                f"cannot serve on port {port}: {error.strerror}; choose another --port, or 0 for any"
            ) from error
        server = _Server(0, html, files)
    with server:
        address = f"http://{HOST}:{server.server_address[1]}/"
        try:
            print(f"{address} (Ctrl-C ends)", flush=True)
            if browser and _has_screen():
                webbrowser.open(address)
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
