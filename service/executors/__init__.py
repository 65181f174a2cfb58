"""Where workers run: on the server's own machine, or on the nodes of a Ray cluster (setting `executor`)."""

from __future__ import annotations

from service.executors.base import Executor
from service.settings import ServerSettings
from service.storage.artifacts import ArtifactStore


def executor_for(settings: ServerSettings, artifacts: ArtifactStore) -> Executor:
    """Returns the executor that the settings name. It does nothing before `start`."""
    if settings.executor == "ray":
        from service.executors.ray import RayExecutor

        return RayExecutor(settings, artifacts)
    from service.executors.local import LocalExecutor

    return LocalExecutor(settings, artifacts)
