"""The one function app of a deployment on Azure: its units share a process, with its connections and its parser."""

from __future__ import annotations

from functools import partial

import azure.functions as func

from bonito.assembly.functions import ingesting
from bonito.assembly.process import Process
from bonito.clouds.azure.queue import open_queue
from functions.embed import azure as embed
from functions.ingest import azure as ingest
from functions.maintenance import azure as maintenance
from functions.sync import azure as sync

app = func.FunctionApp()
process = Process(partial(ingesting, open_queue))
for unit in (ingest, embed, sync):
    app.register_functions(unit.blueprint(process))
app.register_functions(maintenance.blueprint())
