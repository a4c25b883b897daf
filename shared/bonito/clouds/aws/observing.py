"""What a function on AWS tells of its work: structured logs, metrics in the embedded format, and a trace.

None of it holds anything of a document or of a message, but for ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from bonito.settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger, Metrics, Tracer

Answer = TypeVar("Answer")

# The root of our own loggers' names, so that every module of the library logs through this one.
SERVICE = "bonito"
NAMESPACE = "Bonito"


def observed(handle: Callable[[Any, Any], Answer], event: Mapping[str, Any], context: object) -> Answer:
    """Handle an event; every line that is logged meanwhile names the request, and its trace has a part of it."""
    if _is_traced():
        handle = _tracer().capture_lambda_handler(handle, capture_response=False, capture_error=False)
    answer: Answer = _logger().inject_lambda_context(handle)(event, context)
    return answer


def publish(counts: Mapping[str, int], *, function: str) -> None:
    """Write counts out as metrics of the function; none where nothing was counted.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    if not counts:
        return
    metrics = _metrics()
    metrics.add_dimension(name="function", value=function)
    for name, number in counts.items():
        metrics.add_metric(name=name, unit="Count", value=number)
    metrics.flush_metrics()


def _is_traced() -> bool:
    """Whether X-Ray wants to see this invocation; of the others the start need not pay 300 ms for its SDK.

    https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    """
    return "Sampled=1" in os.environ.get("_X_AMZN_TRACE_ID", "")


@cache
def _logger() -> Logger:
    from aws_lambda_powertools import Logger

    return Logger(service=SERVICE, level=Settings.from_environ(os.environ).log_level.upper(), utc=True)


@cache
def _metrics() -> Metrics:
    from aws_lambda_powertools import Metrics

    return Metrics(namespace=NAMESPACE, service=SERVICE)


@cache
def _tracer() -> Tracer:
    from aws_lambda_powertools import Tracer

    return Tracer(service=SERVICE, auto_patch=False)
