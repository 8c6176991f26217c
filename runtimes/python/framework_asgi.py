"""Handlers registered by functions_framework.aio: the library makes an ASGI application of them.

Responsible for: a call as the request of that application, and its response as a reply. Read only
by instances of such functions (framework.py). The application runs on the runtime's one event loop.
"""

import asyncio
from urllib.parse import unquote_to_bytes


def answer_of(app):
    """The application as a coroutine of (event, context) that gives (body, status, headers)."""

    async def invoke(event, context):
        exchange = Exchange(app, event)
        try:
            start = await exchange.message("http.response.start")
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in start.get("headers", ())
            ]
            first = await exchange.message("http.response.body")
            if first.get("more_body"):
                exchange.first = first
                return exchange, start["status"], headers
            exchange.taken()
            return first.get("body") or None, start["status"], headers
        except BaseException:
            await exchange.aclose()
            raise

    return invoke


class Exchange:
    """One request and its response; iterated, the response's body. Each piece is taken before the
    application may send another."""

    first = None

    def __init__(self, app, event):
        self._body = event.body
        self._sent = asyncio.Queue()
        self._is_untaken = False
        self._gone = asyncio.Event()
        self._error = None
        self._task = asyncio.ensure_future(self._run(app, scope_of(event)))

    async def _run(self, app, scope):
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            self._error = error
        finally:
            self._sent.put_nowait({"type": "end"})

    async def _receive(self):
        if self._body is None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message):
        self._sent.put_nowait(message)
        await self._sent.join()

    async def message(self, kind):
        self.taken()
        message = await self._sent.get()
        self._is_untaken = True
        if message["type"] != kind:
            raise self._error or RuntimeError(f"The application sent no {kind}.")
        return message

    def taken(self):
        if self._is_untaken:
            self._is_untaken = False
            self._sent.task_done()

    async def __anext__(self):
        if self.first is not None:
            message, self.first = self.first, None
        elif self._gone.is_set():
            raise StopAsyncIteration
        else:
            message = await self.message("http.response.body")
        if not message.get("more_body"):
            self._gone.set()
            self.taken()
        return message.get("body", b"")

    async def aclose(self):
        # A response that is complete may have work behind it, which goes on.
        if not self._gone.is_set():
            self._gone.set()
            self._task.cancel()


def scope_of(event):
    path, _, query = event.target.partition("?")
    raw_path = path.encode("latin-1")
    headers = event.headers
    scheme = "https" if headers.get("x-forwarded-proto") == "https" else "http"
    host, colon, port = headers.get("host", "localhost").rpartition(":")
    server = (host, int(port)) if colon and port.isdecimal() else (host + colon + port, 80)
    client = headers.get("x-forwarded-for", "127.0.0.1").rpartition(",")[2].strip()
    return {
        "type": "http",
        # Of this version an application listens for the end of its client while it streams.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": event.method,
        "scheme": scheme,
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name in headers
            for value in headers.getlist(name)
        ],
        "server": server,
        "client": (client, 0),
    }
