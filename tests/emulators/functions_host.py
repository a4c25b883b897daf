"""A small Azure Functions host around Microsoft's own Python worker (`azure-functions-runtime`), as a process.

    python -m tests.emulators.functions_host FOLDER [FUNCTION …]

In the folder lie function_app.py and host.json; where functions are named, only theirs of the queues are listened to.

The worker indexes the app, converts what triggers it and runs its functions as it does in Azure; the host is played. It
prints what it found as one line of JSON, listens to the storage queues as host.json says, and runs a timer's function
for each line of its input that names one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient

POLLING_S = 0.05
# How long a message is ours before it is seen again; Azure's host prolongs that while it works, this one does not.
LEASE_S = int(os.environ.get("BONITO_TEST_LEASE_S", "600"))
SETTING = re.compile(r"%(\w+)%")


class Message:
    """What the worker needs of a protocol message: its fields, and which one is set."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def WhichOneof(self, group: str) -> str | None:
        return next(iter(self.__dict__), None)


class Input:
    """A parameter's value; `data` is the part that is set."""

    def __init__(self, name: str, data: Message) -> None:
        self.name, self.data = name, data

    def WhichOneof(self, group: str) -> str:
        return "data"


class Protocol:
    """Stands in for the generated classes of the protocol between host and worker."""

    def __getattr__(self, name: str) -> type[Message]:
        values = {"Success": 1, "Failure": 0, "out": 1, "inout": 2, "undefined": 0}
        made = type(name, (Message,), values if name in {"StatusResult", "BindingInfo"} else {})
        setattr(self, name, made)
        return made


@dataclass(frozen=True)
class Function:
    """An indexed function and the binding that triggers it."""

    id: str
    trigger: dict[str, Any]


class Host:
    """One app in this process: the worker keeps its registry in module globals."""

    def __init__(self, folder: Path) -> None:
        import azure_functions_runtime

        self._worker: Any = azure_functions_runtime
        self._folder, self._protocol = folder, Protocol()
        self.functions: dict[str, Function] = {}
        options = json.loads((folder / "host.json").read_text())["extensions"]["queues"]
        self._batch, self._max_dequeue_count = options["batchSize"], options["maxDequeueCount"]
        self._visibility_s = _seconds(options["visibilityTimeout"])
        assert options["messageEncoding"] == "base64"

    async def load(self) -> None:
        self._worker.start_threadpool_executor()
        sys.path.insert(0, str(self._folder))
        started = Message(capabilities={}, function_app_directory=str(self._folder))
        answer = await self._worker.worker_init_request(self._asked(worker_init_request=started))
        _check(answer)
        found = await self._worker.functions_metadata_request(self._asked())
        for each in found.function_metadata_results or []:
            bindings = [json.loads(SETTING.sub(_setting, binding)) for binding in each.raw_bindings]
            trigger = next(binding for binding in bindings if binding["type"].lower().endswith("trigger"))
            self.functions[each.name] = Function(each.function_id, trigger)

    async def invoke(self, name: str, data: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
        """Run a function; RuntimeError with its traceback where it raised."""
        function = self.functions[name]
        call = Message(
            invocation_id=str(uuid.uuid4()),
            function_id=function.id,
            trace_context=Message(trace_parent="", trace_state="", attributes={}),
            retry_context=Message(retry_count=0, max_retry_count=0, exception=None),
            input_data=[Input(function.trigger["name"], Message(**data))],
            trigger_metadata={key: Message(string=value) for key, value in (metadata or {}).items()},
        )
        _check(await self._worker.invocation_request(self._asked(invocation_request=call)))

    async def run_timer(self, name: str) -> None:
        await self.invoke(name, {"json": json.dumps({"Schedule": {}, "ScheduleStatus": None, "IsPastDue": False})})

    async def listen(self, name: str) -> None:
        """Take messages from a function's queue for as long as this task lives."""
        trigger = self.functions[name].trigger
        connection = os.environ[trigger["connection"]]
        async with (
            QueueClient.from_connection_string(connection, trigger["queueName"], retry_total=0) as queue,
            QueueClient.from_connection_string(connection, f"{trigger['queueName']}-poison", retry_total=0) as poison,
        ):
            while True:
                try:
                    pages = queue.receive_messages(max_messages=self._batch, visibility_timeout=LEASE_S)
                    found = [message async for message in pages]
                except AzureError:
                    found = []
                await asyncio.gather(*(self._deliver(name, queue, poison, message) for message in found))
                if not found:
                    await asyncio.sleep(POLLING_S)

    async def _deliver(self, name: str, queue: QueueClient, poison: QueueClient, message: QueueMessage) -> None:
        metadata = {"Id": message.id, "DequeueCount": str(message.dequeue_count), "PopReceipt": message.pop_receipt}
        try:
            await self.invoke(name, {"string": base64.b64decode(message.content).decode()}, metadata)
        except RuntimeError as error:
            sys.stderr.write(f"{error}\n")
            if (message.dequeue_count or 0) < self._max_dequeue_count:
                await queue.update_message(message, visibility_timeout=self._visibility_s)
                return
            with contextlib.suppress(AzureError):
                await poison.create_queue()
            await poison.send_message(message.content)
        await queue.delete_message(message)

    def _asked(self, **request: Any) -> Message:
        properties = {"host": "127.0.0.1", "protos": self._protocol}
        return Message(request=Message(**request), properties=properties)


def _check(answer: Any) -> None:
    if answer.result.status != 1:
        raise RuntimeError(f"{answer.result.exception.message}\n{answer.result.exception.stack_trace}")


def _setting(match: re.Match[str]) -> str:
    return os.environ[match[1]]


def _seconds(text: str) -> int:
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


async def main(folder: Path, *names: str) -> None:
    host = Host(folder)
    await host.load()
    _tell({name: function.trigger for name, function in host.functions.items()})
    queues = [name for name, function in host.functions.items() if function.trigger["type"] == "queueTrigger"]
    listeners = [asyncio.create_task(host.listen(name)) for name in names or queues]
    while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            await host.run_timer(name)
            _tell({"ran": name})
        except RuntimeError as error:
            _tell({"failed": name, "error": str(error)})
    for listener in listeners:
        listener.cancel()


def _tell(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
    os._exit(0)  # the app's own threads are the host's to end, as in Azure
