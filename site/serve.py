"""A plain file server for the built site, for its film and its tests. Next: film.py."""

import functools
import http.server
import threading
from contextlib import contextmanager


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain file server that writes no log."""

    def log_message(self, *given):
        pass


@contextmanager
def served(folder, handler=Quiet):
    """The address of a folder that is served for the length of a `with`."""
    serve = functools.partial(handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
