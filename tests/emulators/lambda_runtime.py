"""Lambda's Runtime API on the loopback: a real handler in a process of its own, under AWS's own runtime client.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

An environment is one process with one invocation at a time. The first invocation starts it, between invocations it is
frozen with all its children as on Lambda, and a timeout kills it: the next invocation starts it anew.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RUNTIME = "/2018-06-01/runtime/"
REGION, ACCOUNT = "us-east-1", "123456789012"
TRACE = "Root=1-5e988345-9c25bcb4a3b5f4aa2ac3a5f1;Parent=53995c3f42cd8ad8"
START_S = 30.0  # Lambda gives a start ten seconds, and a core of its own


@dataclass
class Invocation:
    """An event on its way through a function; `error` is what Lambda would tell of its failure."""

    event: Any
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    value: Any = None
    error: Mapping[str, Any] | None = None
    is_done: threading.Event = field(default_factory=threading.Event)

    def end(self, *, value: Any = None, error: Mapping[str, Any] | None = None) -> None:
        if not self.is_done.is_set():
            self.value, self.error = value, error
            self.is_done.set()


class Environment:
    """One execution environment of a function."""

    def __init__(
        self,
        handler: str,
        *,
        root: Path,
        environ: Mapping[str, str],
        timeout_s: float,
        log: Path,
        is_traced: bool = False,
    ) -> None:
        self._is_traced = is_traced
        self._handler, self._root, self._environ, self._timeout_s = handler, root, environ, timeout_s
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: queue.Queue[Invocation | None] = queue.Queue()
        self._is_idle, self._lock = threading.Event(), threading.Lock()
        self._current: Invocation | None = None
        self.starts = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._api())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def invoke(self, event: Any) -> Invocation:
        """Run the function to its end, or to that of its time."""
        with self._lock:
            call = Invocation(event)
            if self._process is None or self._process.poll() is not None:
                self._start()
            if not self._wait_until_idle():
                self._stop()
                call.end(error={"errorType": "Runtime.ExitError", "errorMessage": "the start failed"})
                return call
            self._is_idle.clear()
            self._current = call
            self._pending.put(call)
            self._signal(signal.SIGCONT)
            if not self._wait_for(call):
                self._stop()
            return call

    def kill(self) -> None:
        """End the process in the middle of its work, as a lost machine does."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """End the process and its server."""
        with self._lock:
            self._stop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _wait_for(self, call: Invocation) -> bool:
        deadline = time.monotonic() + self._timeout_s
        while not call.is_done.wait(0.02):
            if time.monotonic() > deadline:
                call.end(error={"errorType": "Sandbox.Timedout", "errorMessage": f"after {self._timeout_s} seconds"})
                return False
            if self._process is None or self._process.poll() is not None:
                call.end(error={"errorType": "Runtime.ExitError", "errorMessage": "the process ended"})
                return False
        return self._wait_until_idle()

    def _wait_until_idle(self) -> bool:
        deadline = time.monotonic() + START_S
        while not self._is_idle.wait(0.02):
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                return False
        return True

    def _start(self) -> None:
        self.starts += 1
        self._is_idle.clear()
        self._pending = queue.Queue()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BONITO_"))}
        environ = {
            **inherited,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": self._handler.rsplit(".", 1)[-1],
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "LAMBDA_TASK_ROOT": str(self._root),
            "PYTHONPATH": str(self._root),
            "_HANDLER": self._handler,
            **self._environ,
        }
        command = [sys.executable, "-m", "awslambdaric", self._handler]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._root, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def _stop(self) -> None:
        self._pending.put(None)
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        """To the process and what it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _next(self) -> Invocation | None:
        """The function asks for work: freeze it until there is some."""
        pending = self._pending
        self._signal(signal.SIGSTOP)
        self._is_idle.set()
        return pending.get()

    def _api(self) -> type[BaseHTTPRequestHandler]:
        environment = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                call = environment._next()
                if call is None:
                    self.close_connection = True
                    return
                self._answer(
                    200,
                    json.dumps(call.event).encode(),
                    {
                        "Lambda-Runtime-Aws-Request-Id": call.id,
                        "Lambda-Runtime-Deadline-Ms": str(round((time.time() + environment._timeout_s) * 1000)),
                        "Lambda-Runtime-Invoked-Function-Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:box",
                        "Lambda-Runtime-Trace-Id": f"{TRACE};Sampled={int(environment._is_traced)}",
                    },
                )

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = environment._current
                if call is not None and call.id in self.path:
                    content = json.loads(body) if body else None
                    if self.path.endswith("/error"):
                        call.end(error=content)
                    else:
                        call.end(value=content)
                self._answer(202, b"{}", {})

            def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Api
