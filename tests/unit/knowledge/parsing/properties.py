"""How the property tests run: examples are bounded in number, not in time, for machines with other work."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
