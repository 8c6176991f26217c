"""Handlers written for the Functions Framework, behind the python runtime's calls.

Responsible for: finding the handler's name; making the library's application for it; a call as the
request of that application, and its response as a reply. Read only by instances of such functions
(main.py, `load_framework`), so that others stay as light as they are.

Not responsible for: how a signature is called, what its answers and errors are, and the forms of
events. That is the library's, from the function's own packages: PyPI's functions-framework.

Invariant: what a handler prints goes to the process's ordinary streams.
"""

import ast
import importlib.util
import io
import os
import sys
from urllib.parse import unquote_to_bytes

DECORATORS = frozenset(("http", "cloud_event", "typed"))


# ---------------------------------------------------------------- loading


def load(message, path, load_failed):
    """The handler as a callable of (event, context). `message` is LOAD's, `path` the entry's;
    `load_failed` makes the exception for a handler that is not there."""
    entry = message["entry"]
    target = message.get("handler") or os.environ.get("FUNCTION_TARGET")
    if not target:
        target = choose_target(path, message["function"])
    if target is None:
        text = f"Nothing says which function of {entry} is the handler. Name it: entry: {entry}:NAME"
        raise load_failed("handler-missing", text, entry)

    import functions_framework
    from functions_framework import exceptions

    streams = sys.stdout, sys.stderr
    try:
        # Runs the entry.
        app = functions_framework.create_app(target, path, message.get("signature"))
    except (exceptions.MissingTargetException, exceptions.InvalidTargetTypeException) as error:
        text = str(error).replace(f"File {path}", entry).replace(path, entry)
        raise load_failed("handler-missing", text, entry) from None
    finally:
        # With ENTRY_POINT in the environment, as on the platform's first Python, it puts others in
        # their place, which write everything to standard error.
        sys.stdout, sys.stderr = streams
    if hasattr(app, "wsgi_app"):
        return lambda event, context: answer(app, environ_of(event))
    file = os.path.join(os.path.dirname(__file__), "framework_asgi.py")
    spec = importlib.util.spec_from_file_location("fnway_framework_asgi", file)
    asgi = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(asgi)
    return asgi.answer_of(app)


def choose_target(path, function):
    """The name of the handler where nothing gives one: the function's own, else that of the only
    one that a decorator of the library registers, else that of the only one. None when there are
    several."""
    with open(path, "rb") as file:
        body = ast.parse(file.read(), path).body
    defined = [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    imports = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    imported = [alias.asname or alias.name for node in imports for alias in node.names]
    names = {node.name for node in defined}.union(imported)
    for name in (function, function.replace("-", "_")):
        if name in names:
            return name
    registered = [node.name for node in defined if is_registered(node)]
    candidates = registered or [node.name for node in defined if node.name[0] != "_"]
    return candidates[0] if len(candidates) == 1 else None


def is_registered(node):
    for decorator in node.decorator_list:
        name = decorator.func if isinstance(decorator, ast.Call) else decorator
        if (name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")) in DECORATORS:
            return True
    return False


# ---------------------------------------------------------------- requests


def environ_of(event):
    """The call as WSGI has it (PEP 3333)."""
    path, _, query = event.target.partition("?")
    headers = event.headers
    scheme = "https" if headers.get("x-forwarded-proto") == "https" else "http"
    host = headers.get("host", "localhost")
    name, colon, port = host.rpartition(":")
    has_port = colon and port.isdecimal()
    environ = {
        "REQUEST_METHOD": event.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": event.target,
        "RAW_URI": event.target,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": name if has_port else host,
        "SERVER_PORT": port if has_port else "443" if scheme == "https" else "80",
        # What the gateway saw is last.
        "REMOTE_ADDR": headers.get("x-forwarded-for", "127.0.0.1").rpartition(",")[2].strip(),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(event.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name in headers:
        # A_B would be the same variable as A-B.
        if "_" in name:
            continue
        values = headers.getlist(name)
        value = values[0] if len(values) == 1 else ("; " if name == "cookie" else ",").join(values)
        variable = name.upper().replace("-", "_")
        if variable in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[variable] = value
        else:
            environ[f"HTTP_{variable}"] = value
    if event.body:
        # It came in chunks, or not: here it is whole.
        environ["CONTENT_LENGTH"] = str(len(event.body))
    return environ


# ---------------------------------------------------------------- answers


def answer(app, environ):
    """Runs the application; gives what a handler may return: (body, status, headers)."""
    response = Response()
    pieces = Pieces(app(environ, response.start), response.written)
    try:
        # The first piece says whether there are more: the application tells the whole length of
        # what it does not stream.
        first = next(pieces, None)
        length = response.length()
        if first is None or len(first) == length:
            pieces.close()
            return first, response.status, response.headers
    except BaseException:
        pieces.close()
        raise
    response.is_begun = True
    pieces.put_back(first)
    return pieces, response.status, response.headers


class Response:
    """What an application says of its answer by `start_response`."""

    status = headers = None
    is_begun = False  # status and headers are on their way

    def __init__(self):
        self.written = []

    def start(self, status, headers, error=None):
        if error is not None and self.is_begun:
            raise error[1].with_traceback(error[2])
        self.status, self.headers = int(status[:3]), headers
        return self.written.append

    def length(self):
        for name, value in self.headers:
            if name.lower() == "content-length" and value.isdecimal():
                return int(value)
        return None


class Pieces:
    """An answer's body, piece by piece. Whoever has it closes it, also when nothing was read."""

    def __init__(self, items, written):
        self._items = items
        self._step = iter(items).__next__
        self._ahead = written

    def put_back(self, piece):
        self._ahead.insert(0, piece)

    def __next__(self):
        return self._ahead.pop(0) if self._ahead else self._step()

    def close(self):
        if hasattr(self._items, "close"):
            self._items.close()
