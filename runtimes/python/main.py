"""The python runtime's main program: a fork server and, in each child, one instance.

Responsible for: forking a child per secret read from standard input; the runtime's end of the
link (docs/reference/link.md); loading a version's code; calling its handler; turning what the
handler returns into a reply. Standard library only, Python 3.9 or newer. Handlers written for the
Functions Framework are framework.py's, which only their instances read.

Not responsible for: time limits, retries, memory limits, ending process groups (the driver's
and the gateway's).

Invariants: nothing of a user's runs before the process has taken the user's identity and
environment. The thread that reads the link never runs a handler, so PING, CANCEL and the link's
end are seen while handlers are busy. Threads are made when calls need them, so that an idle child
shares nearly all its memory with the fork server.

Threads of a loaded instance: the reader; the main thread, which imports the entry and then is the
first worker; further workers, up to `concurrency`, when calls wait. Python accepts `signal.signal`
only in the main thread: call it while the module is imported, not in a handler.

Children share the fork server's string hash seed; a function that must not sets PYTHONHASHSEED,
which makes the driver start it with `--direct`, in an interpreter of its own.
"""

import atexit
import collections
import collections.abc
import contextvars
import gc
import importlib.util
import io
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from _thread import allocate_lock, start_new_thread
from urllib.parse import parse_qsl, unquote_to_bytes

# Not used here, but by most handlers: imported once, shared by all children. asyncio, ssl and http
# stay out: they cost 20 ms and several MiB, and few handlers need them.
import base64  # noqa: F401
import dataclasses  # noqa: F401
import datetime  # noqa: F401
import functools  # noqa: F401
import inspect
import logging  # noqa: F401
import typing  # noqa: F401

HELLO, LOAD, LOADED, LOAD_FAILED, CALL, REPLY, DATA = 1, 2, 3, 4, 5, 6, 7
CREDIT, CANCEL, FAIL, PING, PONG, STOP = 8, 9, 10, 11, 12, 13
END = 1
FRAME = struct.Struct("<IBBHII")
pack_header, unpack_header = FRAME.pack, FRAME.unpack_from
HEADER_BYTES = 16
PAYLOAD_BYTES_MAX = 65_536
WINDOW_BYTES = 262_144
# One read takes a full frame and what follows it, yet stays below the 128 KiB from which malloc
# asks the kernel for each buffer.
READ_BYTES = 98_304

# Below this mean time per call, waking a second thread costs more than the call: one worker takes
# all calls and sends replies together. The reader's tick ends that when a handler turns out slow.
QUICK_SECONDS = 100e-6
HELD_REPLIES_MAX = 16
HELD_REPLY_BYTES_MAX = 16_384
TICK_MS = 1

MESSAGE_CHARS_MAX = 4_096
STACK_CHARS_MAX = 8_192
FILES_LISTED_MAX = 20
LINE_CHARS_MAX = 16_384  # a line that a call writes is ended there: the gateway cuts it anyway

PACKAGE = "fnway_function"
HANDLER_NAMES = ("handle", "handler", "main")
REPLY_KEYS = frozenset(("statusCode", "body", "headers"))
TEXT, BINARY, JSON = "text/plain; charset=utf-8", "application/octet-stream", "application/json"
EMPTY_HEAD = b"200"
TEXT_HEAD = b"200\0content-type\0" + TEXT.encode()
BINARY_HEAD = b"200\0content-type\0" + BINARY.encode()
JSON_HEAD = b"200\0content-type\0" + JSON.encode()

is_header_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
is_header_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
encode_json = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


# ---------------------------------------------------------------- what a handler sees


class Pairs(collections.abc.Mapping):
    """Names and values, several values per name possible: `[]`, `get` and `items` give the first
    value of a name, `getlist` all of them."""

    __slots__ = ("_lists",)

    def __init__(self, pairs):
        self._lists = lists = {}
        for name, value in pairs:
            lists.setdefault(name, []).append(value)

    def __getitem__(self, name):
        return self._lists[name][0]

    def getlist(self, name):
        return list(self._lists.get(name, ()))

    def __iter__(self):
        return iter(self._lists)

    def __len__(self):
        return len(self._lists)

    def __repr__(self):
        return f"{type(self).__name__}({dict(self)!r})"


class Headers(Pairs):
    """Pairs whose names are compared without case; iterating gives lower-case names."""

    __slots__ = ()

    def __init__(self, pairs):
        super().__init__((name.lower(), value) for name, value in pairs)

    def __getitem__(self, name):
        return self._lists[name.lower()][0]

    def getlist(self, name):
        return super().getlist(name.lower())


class Event:
    """The request.

    body      bytes
    text      the body as UTF-8 text
    json()    the body read as JSON; raises ValueError when it is not
    method    "GET", "POST", ...
    path      the decoded path below the function's address, beginning with "/"
    query     the query's parameters: `query["a"]`, `query.get("a")`, `query.getlist("a")`
    headers   the same for the headers; names are compared without case
    target    path and query as the caller sent them
    """

    __slots__ = ("method", "target", "body", "_fields", "_headers", "_query")

    def __init__(self, fields, body):
        self.method = fields[0]
        self.target = fields[1]
        self.body = body
        self._fields = fields
        self._headers = self._query = None

    @property
    def path(self):
        path = self.target.partition("?")[0]
        if path.isascii() and "%" not in path:
            return path
        return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")

    @property
    def query(self):
        if self._query is None:
            query = self.target.partition("?")[2].encode("latin-1").decode("utf-8", "replace")
            self._query = Pairs(parse_qsl(query, keep_blank_values=True))
        return self._query

    @property
    def headers(self):
        if self._headers is None:
            self._headers = Headers(zip(self._fields[4::2], self._fields[5::2]))
        return self._headers

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Secrets(collections.abc.Mapping):
    def __init__(self, values, files):
        self._values = values
        self._files = files

    def __getitem__(self, name):
        if name not in self._files:
            return self._values[name]
        with open(self._files[name], encoding="utf-8") as file:
            return file.read()

    def __iter__(self):
        yield from self._values
        yield from self._files

    def __len__(self):
        return len(self._values) + len(self._files)

    def __repr__(self):
        return f"Secrets({', '.join(self)})"


class Context:
    """What a handler may know about its call.

    hostname        HOSTNAME of the function's environment, else the machine's name
    function        the function's name
    namespace       its namespace
    version         the number of the version that runs
    call_id         the call's id, the same in the gateway's records
    remaining_ms()  milliseconds until the call's time limit, never below 0; None without a limit
    cancelled       True once nobody waits for the answer any more
    secrets         values of the function's secrets by name; one that is a file is read anew each
                    time
    """

    __slots__ = ("_call", "call_id")
    # An instance has one of each: set by LOAD.
    hostname = function = namespace = version = secrets = None

    def __init__(self, call):
        self._call = call
        self.call_id = call.fields[2]

    @property
    def cancelled(self):
        return self._call.cancelled

    def remaining_ms(self):
        deadline = self._call.deadline
        if deadline is None:
            return None
        return max(0, round((deadline - time.monotonic()) * 1000))


# ---------------------------------------------------------------- output

# Whose a line of output is: a worker sets this for each call, coroutines and copied contexts take
# it with them. What nobody's context writes (threads that a handler starts, file descriptors,
# programs) goes out as it is: the instance's.
current_call = contextvars.ContextVar("fnway_call", default=None)


class CallText(io.TextIOWrapper):
    """A standard stream that marks the lines that a call writes as the call's
    (docs/reference/link.md). In the stream, not beside it: lines keep their order, and whole lines
    are written when a crash comes."""

    def __init__(self, stream):
        super().__init__(
            stream.detach(), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )

    def write(self, text):
        call = current_call.get()
        if call is None or not isinstance(text, str):
            return super().write(text)
        written = call.written
        if written is None:
            written = call.written = {}
        whole, end, rest = (written.get(self, "") + text).rpartition("\n")
        if len(rest) > LINE_CHARS_MAX:
            whole, end, rest = whole + end + rest, "\n", ""
        written[self] = rest
        if end:
            mark = call.mark()
            super().write(mark + whole.replace("\n", "\n" + mark) + "\n")
        return len(text)


def end_output(call):
    """The call is over: what has no end of its line gets one. Before the last frame of its answer:
    whoever has that finds all that was written before it."""
    written, call.written = call.written, None
    for stream, rest in written.items():
        if rest:
            try:
                io.TextIOWrapper.write(stream, call.mark() + rest + "\n")
            except Exception:
                pass  # the log is gone


# ---------------------------------------------------------------- the link


class Call:
    """One stream. Defaults live on the class: most calls change none of them."""

    cancelled = False  # written by the reader
    deadline = None
    parts = None  # the body's pieces while it is incomplete
    received_bytes = uncredited_bytes = 0
    granted_bytes = WINDOW_BYTES  # written by the reader only, so that no lock is needed
    sent_bytes = 0  # written by the worker only
    waiter = None  # the lock on which the worker waits for credit
    future = None  # the coroutine running for this call
    written = None  # what it has written to the standard streams without the end of the line

    def __init__(self, stream, fields, body):
        self.stream = stream
        self.fields = fields
        self.body = body

    def mark(self):
        return f"\x1e{self.fields[2][-26:]}\x1f"

    def wait_for_credit(self):
        lock = allocate_lock()
        lock.acquire()
        self.waiter = lock
        if self.cancelled or self.granted_bytes > self.sent_bytes:
            self.waiter = None  # it came before the reader could see the lock
        else:
            lock.acquire()

    def stop_waiting(self):
        future = self.future  # its worker may let it go meanwhile
        if future is not None:
            future.cancel()
        self.wake()

    def wake(self):
        lock, self.waiter = self.waiter, None
        if lock is not None:
            lock.release()


class Link:
    """One connection: reads frames, hands calls to workers, sends frames.

    Deques, lists and dicts are shared between threads without locks: each operation used on them
    is atomic, and every check-then-wait below checks again after it has announced its wait."""

    def __init__(self, path, secret):
        self.secret = secret
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.rest = b""
        self.load_parts = None
        self.streams = {}
        self.calls = collections.deque()
        self.idle = []  # the locks of parked workers; the last to park is the first to wake
        self.main_park = allocate_lock()
        self.workers = 1
        self.concurrency = 0  # until LOAD
        self.body_bytes_max = 0
        self.invoke = None  # until LOADED; calls that come earlier wait for it
        self.stopping = False
        self.seconds_per_call = 1.0
        self.calls_done = 0
        self.out = collections.deque()
        self.writing = allocate_lock()
        hello = b'{"protocol":1,"secret":"%s","pid":%d,"runtime":"python"}'
        self.post(frame(HELLO, hello % (secret, os.getpid())))

    # -- sending

    def post(self, data):
        self.out.append(data)
        self.flush()

    def post_reply(self, data):
        """Sends, or holds the reply while more quick calls wait, to send them together."""
        out = self.out
        out.append(data)
        if (
            self.calls
            and self.seconds_per_call < QUICK_SECONDS
            and len(out) < HELD_REPLIES_MAX
            and len(data) < HELD_REPLY_BYTES_MAX
        ):
            return
        self.flush()

    def flush(self):
        # Whoever holds the lock sends for all. It looks again after letting go, so nothing that
        # was appended meanwhile is left behind.
        out, writing = self.out, self.writing
        while out and writing.acquire(False):
            try:
                self.drain()
            finally:
                writing.release()

    def drain(self):
        out = self.out
        try:
            while out:
                if len(out) == 1:
                    data = out.popleft()
                else:
                    data = b"".join([out.popleft() for _ in range(len(out))])
                self.socket.sendall(data)
        except OSError:
            os._exit(0)  # the link is closed

    # -- reading

    def read(self):
        """Reads frames. Returns the LOAD when it is complete; after that never returns: the
        process ends with the link."""
        receive, streams, calls, out = self.socket.recv, self.streams, self.calls, self.out
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        ticked_at = -1
        rest, self.rest = self.rest, b""
        while True:
            if rest:
                data, rest = rest, b""
            else:
                data = b""
            while len(data) < HEADER_BYTES or len(data) < HEADER_BYTES + frame_length(data):
                # The order of these two checks matters: a reply is held only while calls wait,
                # so with no calls waiting, whatever is held is already in `out`.
                while (calls or out) and not poll.poll(TICK_MS):
                    self.flush()
                    if calls and self.calls_done == ticked_at:
                        self.wake_workers(len(calls))
                    ticked_at = self.calls_done
                try:
                    more = receive(READ_BYTES)
                except OSError:
                    more = b""  # closed with bytes of ours unread
                if not more:
                    os._exit(0)
                data = data + more if data else more

            now = time.monotonic()
            ready = 0
            at, size = 0, len(data)
            while size - at >= HEADER_BYTES:
                length, kind, flags, instance, stream, arg = unpack_header(data, at)
                start = at + HEADER_BYTES
                end = start + length
                if length > PAYLOAD_BYTES_MAX or instance:
                    broken(f"a frame of {length} bytes for instance {instance}")
                if end > size:
                    break
                at = end
                if kind == CALL:
                    body_at = start + arg
                    fields = data[start:body_at].decode("latin-1").split("\0")
                    if body_at > end or len(fields) < 4 or len(fields) & 1 or not stream:
                        broken("a CALL with a bad head")
                    if stream in streams or self.concurrency == 0:
                        broken(f"a CALL on stream {stream} out of turn")
                    call = Call(stream, fields, data[body_at:end])
                    if fields[3] != "0":
                        call.deadline = now + timeout_seconds(fields[3])
                    streams[stream] = call
                    if flags & END and length - arg <= self.body_bytes_max:
                        calls.append(call)
                        ready += 1
                    else:
                        body, call.body = call.body, b""
                        ready += self.collect(call, body, flags & END)
                elif kind == DATA:
                    if stream:
                        call = streams.get(stream)
                        if call is not None and call.parts is not None:
                            ready += self.collect(call, data[start:end], flags & END)
                    elif self.load_parts:
                        self.load_parts.append(data[start:end])
                        if flags & END:
                            self.rest = data[at:]
                            return self.take_load()
                elif kind == CREDIT:
                    call = streams.get(stream)
                    if call is not None:
                        call.granted_bytes += arg
                        call.wake()
                elif kind == CANCEL:
                    call = streams.get(stream)
                    if call is not None:
                        call.cancelled = True
                        if call.parts is not None:
                            # No handler has it yet, and none will.
                            call.parts = None
                            self.let_go(call)
                        call.stop_waiting()
                        self.check_stop()
                elif kind == PING:
                    self.post(frame(PONG, b"", arg=arg))
                elif kind == STOP:
                    self.stopping = True
                    if self.load_parts is None:
                        self.finish()
                    self.check_stop()
                elif kind == LOAD and self.load_parts is None:
                    self.load_parts = [data[start:end]]
                    if flags & END or is_json(data[start:end]):
                        self.rest = data[at:]
                        return self.take_load()
                else:
                    broken(f"a frame of type {kind}")
            if at < size:
                rest = data[at:]
            if ready:
                self.hand_over(ready)

    def take_load(self):
        text, self.load_parts = b"".join(self.load_parts), []
        try:
            return json.loads(text)
        except ValueError as error:
            broken(f"a LOAD that is not JSON: {error}")

    def collect(self, call, data, complete):
        """Adds to a body that comes in pieces. Gives 1 when the call is ready to run."""
        if call.parts is None:
            call.parts = []
        call.parts.append(data)
        call.received_bytes += len(data)
        if call.received_bytes > self.body_bytes_max:
            call.cancelled = True
            self.streams.pop(call.stream, None)
            message = f"The request's body is larger than {self.body_bytes_max} bytes."
            self.fail(call, {"reason": "body-too-large", "message": message})
            return 0
        if complete:
            call.body, call.parts = b"".join(call.parts), None
            self.calls.append(call)
            return 1
        call.uncredited_bytes += len(data)
        if call.uncredited_bytes >= WINDOW_BYTES // 2:
            self.post(frame(CREDIT, b"", stream=call.stream, arg=call.uncredited_bytes))
            call.uncredited_bytes = 0
        return 0

    # -- handing calls to workers (the reader's thread)

    def hand_over(self, count):
        if self.seconds_per_call >= QUICK_SECONDS:
            self.wake_workers(count)
        elif len(self.idle) == self.workers:
            self.wake_workers(1)

    def wake_workers(self, count):
        if self.invoke is None:
            return
        for _ in range(count):
            try:
                self.idle.pop().release()
                continue
            except IndexError:
                pass
            if self.workers >= self.concurrency:
                return
            name = f"call-{self.workers}"
            try:
                threading.Thread(target=self.work, name=name, daemon=True).start()
            except RuntimeError:
                return  # the process may have no more threads: those it has will do the work
            self.workers += 1

    def check_stop(self):
        """Lets the main thread end the process once a STOP has come and no call is left."""
        if self.stopping and not self.streams:
            try:
                self.idle.remove(self.main_park)
            except ValueError:
                return  # the main thread is not parked: it looks by itself before it parks
            self.main_park.release()

    def finish(self):
        try:
            atexit._run_exitfuncs()
        except BaseException:
            pass  # already printed by atexit
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        self.writing.acquire()
        self.drain()
        os._exit(0)

    # -- working

    def work(self, park=None):
        """A worker's life. The main thread brings its own `park`; it alone ends the process."""
        is_main = park is not None
        park = park or allocate_lock()
        park.acquire()
        calls, idle = self.calls, self.idle
        clock = time.perf_counter
        while True:
            try:
                call = calls.popleft()
            except IndexError:
                if is_main and self.stopping and not self.streams:
                    self.finish()
                idle.append(park)
                if calls or (is_main and self.stopping and not self.streams):
                    try:
                        idle.remove(park)
                        continue
                    except ValueError:
                        pass  # somebody is waking this worker already
                park.acquire()
                continue
            if not call.cancelled:
                started = clock()
                current_call.set(call)
                self.run(call)
                current_call.set(None)
                if call.written is not None:
                    end_output(call)
                self.seconds_per_call += (clock() - started - self.seconds_per_call) / 8
                self.calls_done += 1
            self.let_go(call)
            if self.stopping:
                self.check_stop()

    def let_go(self, call):
        """The call holds its place until here: a cancelled one is ended with CANCEL."""
        self.streams.pop(call.stream, None)
        # Threads that wait remember their last call. What it held is the user's: a body, and by a
        # coroutine's exception all that its frames reached.
        call.body = b""
        if call.future is not None:
            call.future = None
        if call.cancelled:
            self.post(frame(CANCEL, b"", stream=call.stream))

    def run(self, call):
        try:
            result = self.invoke(Event(call.fields, call.body), Context(call))
            if hasattr(result, "__await__"):
                result = wait_for(result, call)
        except BaseException as error:
            self.fail_threw(call, error)
            return
        try:
            head, body = build_reply(result)
        except ReplyInvalid as error:
            self.fail_invalid(call, error)
            return
        except BaseException as error:
            # The value's own methods are the user's code too.
            self.fail_threw(call, error)
            return
        length = len(head)
        if type(body) is not bytes:
            self.stream_reply(call, head, body)
            return
        if call.written is not None:
            end_output(call)
        if call.cancelled:
            return
        if length + len(body) <= PAYLOAD_BYTES_MAX:
            size = length + len(body)
            header = pack_header(size, REPLY, END, 0, call.stream, length)
            self.post_reply(header + head + body)
        else:
            self.send_body(call, body, head, True)

    def send_body(self, call, body, head, complete):
        """Sends body bytes as credit allows, the first with the head if one is given."""
        body = memoryview(body)
        while not call.cancelled:
            head_length = 0 if head is None else len(head)
            credit = call.granted_bytes - call.sent_bytes
            size = min(PAYLOAD_BYTES_MAX - head_length, len(body), credit)
            if size <= 0 and len(body) and head is None:
                call.wait_for_credit()
                continue
            last = size == len(body)
            kind = DATA if head is None else REPLY
            flags = END if last and complete else 0
            header = pack_header(head_length + size, kind, flags, 0, call.stream, head_length)
            self.post(b"".join((header, head or b"", body[:size])))
            call.sent_bytes += size
            if last:
                return
            body, head = body[size:], None

    def stream_reply(self, call, head, items):
        """Sends what an iterator yields, each item before the next is asked for."""
        step = items.__next__ if hasattr(items, "__next__") else None
        head_sent = False
        try:
            while not call.cancelled:
                try:
                    item = step() if step else wait_for(items.__anext__(), call)
                except (StopIteration, StopAsyncIteration):
                    if call.written is not None:
                        end_output(call)
                    self.send_body(call, b"", None if head_sent else head, True)
                    return
                data, content_type = stream_item(item)
                if not head_sent:
                    if names_types and b"\0content-type\0" not in head.lower():
                        head += b"\0content-type\0" + content_type
                    check_head(head)
                    self.send_body(call, data, head, False)
                    head_sent = True
                elif data:
                    self.send_body(call, data, None, False)
        except ReplyInvalid as error:
            if head_sent:
                self.cancel(call, str(error))
            else:
                self.fail_invalid(call, error)
        except BaseException as error:
            if head_sent:
                print_error(describe(error, "threw")["stack"])
                self.cancel(call, f"{type(error).__name__}: {message_of(error)}")
            else:
                self.fail_threw(call, error)
        finally:
            close_items(items)

    # -- failing

    def fail(self, call, problem):
        if call.written is not None:
            end_output(call)
        self.post(frame(FAIL, encode_problem(problem), stream=call.stream))

    def fail_threw(self, call, error):
        if call.cancelled and call.future is not None:
            return  # the coroutine was cancelled because the call was
        problem = describe(error, "threw")
        print_error(problem["stack"])
        if not call.cancelled:
            self.fail(call, problem)

    def fail_invalid(self, call, error):
        print_error(f"{error}\n")
        if not call.cancelled:
            problem = {"reason": "reply-invalid", "type": "ReplyInvalid", "message": str(error)}
            self.fail(call, problem)

    def cancel(self, call, reason):
        if call.written is not None:
            end_output(call)
        if not call.cancelled:
            reason = reason[:MESSAGE_CHARS_MAX].encode("utf-8", "replace")
            self.post(frame(CANCEL, reason, stream=call.stream))


def frame(kind, payload, flags=0, stream=0, arg=0):
    return pack_header(len(payload), kind, flags, 0, stream, arg) + payload


def frame_length(data):
    length = int.from_bytes(data[:4], "little")
    return length if length <= PAYLOAD_BYTES_MAX else 0  # too long: the parser reports it


def is_json(data):
    """Whether a LOAD without END is whole all the same: a part of a JSON object never parses."""
    try:
        return data.endswith(b"}") and bool(json.loads(data))
    except ValueError:
        return False


def timeout_seconds(field):
    try:
        return int(field) / 1000
    except ValueError:
        broken(f"a CALL with the timeout {field!r}")


def broken(what):
    """The peer broke the protocol: nothing it sends can be trusted any more."""
    print_error(f"fnway: the gateway sent {what}; the link is given up\n")
    os._exit(1)


# ---------------------------------------------------------------- replies


names_types = True  # an answer without a content type gets that of its value


class ReplyInvalid(Exception):
    """What the handler returned cannot be sent as a reply."""


def build_reply(result):
    """The reply's head and its body: bytes, or an iterator of pieces to stream."""
    kind = type(result)
    if kind is str:
        return TEXT_HEAD, encode_text(result)
    if result is None:
        return EMPTY_HEAD, b""
    if kind is bytes:
        return BINARY_HEAD, result
    if isinstance(result, dict) and result and result.keys() <= REPLY_KEYS:
        status = result.get("statusCode", 200)
        return build_shaped_reply(result.get("body"), status, result.get("headers"))
    if isinstance(result, tuple):
        if len(result) == 2 and not isinstance(result[1], (dict, list)):
            return build_shaped_reply(result[0], result[1], None)
        if len(result) == 2:
            return build_shaped_reply(result[0], 200, result[1])
        if len(result) == 3:
            return build_shaped_reply(*result)
        raise ReplyInvalid(
            f"The handler returned a tuple of {len(result)}. "
            "It may return (body, status) or (body, status, headers)."
        )
    body, content_type = encode_body(result)
    if content_type is JSON:
        return JSON_HEAD, body
    return EMPTY_HEAD if content_type is None else BINARY_HEAD, body


def check_head(head):
    if len(head) > PAYLOAD_BYTES_MAX:
        raise ReplyInvalid(f"The handler returned {len(head)} bytes of headers.")


def build_shaped_reply(body, status, headers):
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise ReplyInvalid(
            f"The handler returned the status {show(status)}. It must be from 200 to 599."
        )
    body, content_type = encode_body(body)
    fields = [str(int(status))]
    for name, value in header_pairs(headers) if headers else ():
        if not isinstance(name, str) or not is_header_name(name):
            raise ReplyInvalid(f"The handler returned a header named {show(name)}.")
        if name.lower() == "content-type":
            content_type = None
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        elif type(value) in (int, float):
            value = str(value)
        if not isinstance(value, str) or not is_header_value(value):
            raise ReplyInvalid(
                f"The handler returned the header {name} with the value {show(value)}. "
                "It must be Latin-1 text without control characters, or a number."
            )
        fields += name, value.strip()
    if status in (204, 304):
        close_items(body)
        body, content_type = b"", None  # HTTP has no body here
    if content_type is not None and names_types:
        fields += "content-type", content_type
    head = "\0".join(fields).encode("latin-1")
    check_head(head)
    return head, body


def header_pairs(headers):
    pairs = headers.items() if hasattr(headers, "items") else headers
    try:
        pairs = [(name, value) for name, value in pairs]
    except (TypeError, ValueError):
        raise ReplyInvalid(
            f"The handler returned the headers {show(headers)}. "
            "They must be a dict or a list of (name, value)."
        ) from None
    for name, value in pairs:
        if isinstance(value, (list, tuple)):
            for one in value:
                yield name, one
        else:
            yield name, value


def encode_body(value):
    if value is None:
        return b"", None
    if isinstance(value, str):
        return encode_text(value), TEXT
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BINARY
    if isinstance(value, (dict, list, int, float)):
        try:
            return encode_json(value).encode(), JSON
        except (TypeError, ValueError, RecursionError) as error:
            raise ReplyInvalid(
                f"The handler returned a {type(value).__name__} that is not JSON: {error}."
            ) from None
    if hasattr(value, "__next__") or hasattr(value, "__anext__"):
        return value, None
    raise ReplyInvalid(
        f"The handler returned {show(value)}. It may return None, text, bytes, what JSON can "
        "hold, a generator of text or bytes, a tuple (body, status, headers), or a dict of "
        "statusCode, headers and body."
    )


def encode_text(text):
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ReplyInvalid(f"The handler returned text that is not Unicode: {error}.") from None


def stream_item(item):
    if isinstance(item, str):
        return encode_text(item), TEXT.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item), BINARY.encode()
    raise ReplyInvalid(f"The generator yielded {show(item)}. It must yield text or bytes.")


def show(value):
    """A value in a message: its type and, when it is short, what it is."""
    try:
        text = repr(value)
    except Exception:
        text = "?"
    text = text if len(text) <= 100 else text[:97] + "..."
    return f"{text} ({type(value).__name__})"


def close_items(items):
    try:
        if hasattr(items, "aclose"):
            wait_for(items.aclose(), None)
        elif hasattr(items, "close"):
            items.close()
    except BaseException as error:
        print_error(describe(error, "threw")["stack"])


# ---------------------------------------------------------------- coroutines

# One event loop serves all of an instance's coroutines, so that a client or a session kept in a
# global works from call to call. asyncio.run would make, and close, a loop for each call.
event_loop = None
event_loop_made = allocate_lock()


def wait_for(awaitable, call):
    """Runs a coroutine on the event loop and waits. A cancelled call cancels it."""
    import asyncio

    async def run():
        return await awaitable

    future = asyncio.run_coroutine_threadsafe(run(), start_event_loop())
    if call is not None:
        call.future = future
        if call.cancelled:
            future.cancel()
    return future.result()


def start_event_loop():
    global event_loop
    with event_loop_made:
        if event_loop is None:
            import asyncio

            event_loop = asyncio.new_event_loop()
            run = event_loop.run_forever
            threading.Thread(target=run, name="event-loop", daemon=True).start()
    return event_loop


# ---------------------------------------------------------------- loading


class LoadFailed(Exception):
    def __init__(self, reason, message, file=None):
        super().__init__(message)
        self.reason = reason
        self.file = file


directory = None  # of the version this process runs; None before LOAD


def load(link, message):
    """Turns this generic process into an instance of one version; gives the handler as a callable
    of (event, context). The order is the protocol's."""
    global directory
    if message.get("log"):
        redirect_output(message["log"], link.secret)
    try:
        if "uid" in message:
            os.setgroups([])
            os.setgid(message["gid"])
            os.setuid(message["uid"])
        os.umask(0o022)
    except (OSError, OverflowError, TypeError) as error:
        raise LoadFailed("identity", f"The process cannot take its identity: {error}") from None
    replace_environment(message["env"])
    directory = message["directory"].rstrip("/")
    try:
        os.chdir(directory)
    except OSError as error:
        raise LoadFailed("entry-missing", f"The version's directory: {error}") from None
    Context.hostname = os.environ.get("HOSTNAME") or socket.gethostname()
    Context.function = message["function"]
    Context.namespace = message["namespace"]
    Context.version = message["version"]
    Context.secrets = Secrets(message.get("secrets", {}), message.get("secretFiles", {}))
    entry = message["entry"]
    path = find_entry(entry)
    if message.get("framework"):
        return load_framework(message, path)
    module = import_entry(path)
    handler = find_handler(module, entry, message.get("handler"))
    invoke = adapt(handler, entry)
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        start_event_loop()  # while loading, not in the first call
    return invoke


def redirect_output(path, secret):
    for descriptor, name in ((1, b"stdout"), (2, b"stderr")):
        log = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        log.connect(path)
        log.sendall(secret + b" " + name + b"\n")
        os.dup2(log.fileno(), descriptor)
        log.close()


def replace_environment(variables):
    # The mark by which the keeper finds this gateway's processes outlives the replacement.
    mark = os.environ.get("FNWAY_GATEWAY")
    os.environ.clear()
    if mark is not None:
        os.environ["FNWAY_GATEWAY"] = mark
    os.environ.update(variables)
    if "TZ" in variables:
        time.tzset()


def find_entry(entry):
    """The path of the entry. Puts its folder, so that `import hello` works, and the version's
    packages on sys.path."""
    path = os.path.join(directory, entry)
    folder = os.path.dirname(path)
    if not os.path.isfile(path):
        raise LoadFailed("entry-missing", f"There is no {entry}. {list_files()}")
    paths = [directory] if folder == directory else [directory, folder]
    dependencies = os.path.join(directory, ".fnway", "python")
    if os.path.isdir(dependencies):
        paths.append(dependencies)
    sys.path[:0] = paths
    sys.argv = [path]
    return path


def load_framework(message, path):
    """The same for a handler of the Functions Framework: what that needs is in a file of its own."""
    global names_types
    names_types = False
    file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "framework.py")
    spec = importlib.util.spec_from_file_location("fnway_framework", file)
    framework = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(framework)
    return framework.load(message, path, LoadFailed)


def import_entry(path):
    """Imports the entry as a module of a made-up package whose folder is the entry's, so that
    `from .hello import hello` works."""
    folder, name = os.path.split(path)
    package = types.ModuleType(PACKAGE)
    package.__path__ = [folder]
    sys.modules[PACKAGE] = package
    stem = os.path.splitext(name)[0].replace(".", "_")
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{stem}", path)
    if spec is None:
        raise LoadFailed("entry-missing", f"{shorten(path)} is not a Python file. {list_files()}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.modules.setdefault(stem, module)  # a sibling that imports the entry gets this one
    setattr(package, stem, module)
    spec.loader.exec_module(module)
    return module


def list_files():
    found = []
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [os.path.relpath(os.path.join(folder, name), directory) for name in sorted(files)]
        if len(found) > FILES_LISTED_MAX:
            found[FILES_LISTED_MAX:] = ["..."]
            break
    return f"Its files: {', '.join(found)}." if found else "The version has no files."


def find_handler(module, entry, name):
    found = None
    for candidate in [name] if name else HANDLER_NAMES:
        value = module
        for part in candidate.split("."):
            value = getattr(value, part, None)
        if callable(value):
            return value
        found = found or (value is not None and candidate)
    if found:
        raise LoadFailed("handler-missing", f"{found} in {entry} is not callable.", entry)
    wanted = name or ", ".join(HANDLER_NAMES[:-1]) + f" or {HANDLER_NAMES[-1]}"
    names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    own = [key for key in names if getattr(module, key).__module__ == module.__name__]
    exist = f"It has: {', '.join(own or names)}." if names else "It has no callables."
    raise LoadFailed("handler-missing", f"{entry} has no {wanted}. {exist}", entry)


def adapt(handler, entry):
    """The handler as a callable of two arguments, given as many of them as it takes."""
    # The common case without inspect, which costs a fifth of a cold start.
    if type(handler) is types.FunctionType and not hasattr(handler, "__wrapped__"):
        if handler.__code__.co_argcount == 2 and not handler.__code__.co_kwonlyargcount:
            return handler
    try:
        parameters = inspect.signature(handler).parameters.values()
    except ValueError:
        return handler  # a builtin that does not say: it gets both
    least = most = 0
    for parameter in parameters:
        required = parameter.default is parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += required
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = max(most, 2)
        elif parameter.kind is parameter.KEYWORD_ONLY and required:
            least = 3  # nobody passes it
    if least > 2:
        name = getattr(handler, "__name__", "The handler")
        message = f"{name} in {entry} must take (event, context), it takes "
        raise LoadFailed("handler-missing", f"{message}{inspect.signature(handler)}.", entry)
    if most >= 2:
        return handler
    if most == 1:
        return lambda event, context: handler(event)
    return lambda event, context: handler()


# ---------------------------------------------------------------- problems


def describe(error, reason):
    """The problem for an exception of the user's code."""
    problem = {"reason": reason, "type": type(error).__name__, "message": message_of(error)}
    if reason == "syntax":
        problem["message"] = error.msg
        problem["file"] = shorten(error.filename)
        problem["line"] = error.lineno
        problem["column"] = error.offset
    first = None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_users(file):
            first = first or trace
            if reason != "syntax":
                problem["file"], problem["line"] = shorten(file), trace.tb_lineno
        trace = trace.tb_next
    if first is None and reason == "threw":
        first = error.__traceback__  # thrown by something the user's code handed to us
    lines = traceback.format_exception(type(error), error, first)
    stack = "".join(lines)
    if len(stack) > STACK_CHARS_MAX:
        # The end tells most. Whole lines: the gateway hides values of secrets that it sees whole.
        stack = stack[-STACK_CHARS_MAX:].partition("\n")[2]
    problem["stack"] = stack
    return problem


def load_problem(error):
    if isinstance(error, LoadFailed):
        problem = {"reason": error.reason, "message": str(error)}
        return {**problem, "file": error.file} if error.file else problem
    if isinstance(error, SyntaxError) and error.filename and error.filename[0] != "<":
        return describe(error, "syntax")
    if isinstance(error, ModuleNotFoundError):
        problem = describe(error, "module-missing")
        problem["message"] += "; add its package to requirements.txt"
        return problem
    return describe(error, "threw")


def is_users(file):
    return (
        directory is not None
        and file.startswith(directory + "/")
        and not file.startswith(directory + "/.fnway/")
    )


def shorten(file):
    inside = directory is not None and file.startswith(directory + "/")
    return file[len(directory) + 1 :] if inside else file


def message_of(error):
    try:
        return str(error)[:MESSAGE_CHARS_MAX]
    except BaseException:
        return "(its message cannot be shown)"


def encode_problem(problem):
    payload = json.dumps(problem).encode()
    chars_max = MESSAGE_CHARS_MAX
    # JSON may take twelve bytes for a letter.
    while len(payload) > PAYLOAD_BYTES_MAX:
        chars_max //= 2
        cut = {k: v[:chars_max] if isinstance(v, str) else v for k, v in problem.items()}
        payload = json.dumps(cut).encode()
    return payload


def print_error(text):
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:
        pass  # the log is gone; the gateway still gets the problem


# ---------------------------------------------------------------- processes


def main():
    sys.dont_write_bytecode = True  # a version's directory never changes
    sys.stdout, sys.stderr = CallText(sys.stdout), CallText(sys.stderr)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    if "--direct" in sys.argv[1:]:
        own_folder = os.path.dirname(os.path.abspath(__file__))
        if sys.path and os.path.abspath(sys.path[0]) == own_folder:
            del sys.path[0]  # without -I the interpreter puts it there
        be_instance(os.environ["FNWAY_LINK_SECRET"].encode())
    serve_forks()


def serve_forks():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()
    gc.collect()
    while True:
        secret = read_secret()
        if secret is None:
            return
        gc.freeze()  # keeps the children's collector off the shared pages
        try:
            child = os.fork()
        except OSError as error:
            print_error(f"fnway: the python fork server cannot fork: {error}\n")
            continue
        if child == 0:
            try:
                gc.enable()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                be_instance(secret)
            finally:
                os._exit(1)  # a child never goes on as the server


def read_secret():
    # Byte by byte: what is read ahead would be in the memory of the next child, and with it the
    # secrets of children that are not its own.
    line = b""
    while True:
        byte = os.read(0, 1)
        if not byte:
            return None
        if byte == b"\n":
            return line
        line += byte


def be_instance(secret):
    try:
        os.setsid()
    except PermissionError:
        pass  # the driver has made it a session leader
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        link = Link(os.environ["FNWAY_LINK"], secret)
    except OSError as error:
        print_error(f"fnway: cannot connect to the gateway: {error}\n")
        os._exit(1)
    message = link.read()
    # A process that the function forks must not keep the link open.
    os.register_at_fork(after_in_child=link.socket.close)
    link.concurrency = max(1, message["concurrency"])
    link.body_bytes_max = message["bufferedBodyBytesMax"]
    start_new_thread(link.read, ())
    try:
        invoke = load(link, message)
    except BaseException as error:
        link.post(frame(LOAD_FAILED, encode_problem(load_problem(error))))
        link.main_park.acquire()
        link.idle.append(link.main_park)
        link.check_stop()
        link.main_park.acquire()
        link.finish()
    link.post(frame(LOADED, b'{"body":"whole"}'))
    link.invoke = invoke
    link.work(link.main_park)


if __name__ == "__main__":
    main()
