"""What a job refers to: artifacts, folders, a strategy. Checked when it is created, resolved when it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressors.errors import OptionError
from compressors.strategies import STRATEGIES
from deploy.errors import DeviceMissingError
from service.devices.agents import AgentStore
from service.errors import InvalidRequestError, NotFoundError, Violation
from service.spec import LOCAL, JobSpec, StrategyChoice, Target
from service.storage.artifacts import ARTIFACT_PREFIX, Artifact, ArtifactKind, ArtifactStore


@dataclass(frozen=True)
class Reference:
    """One mention of an artifact: the field's path below the spec, its name, and the kind that it must be."""

    field: str
    name: str
    kind: ArtifactKind


def artifact_references(spec: JobSpec) -> Iterator[Reference]:
    """Yields every artifact that a spec names."""
    model = spec.model
    files = {"pt2": model.pt2_artifact, "onnx": model.onnx_artifact, "folder": model.folder_artifact}
    for kind, name in files.items():
        if name is not None:
            yield Reference(f"model.{kind}_artifact", name, ArtifactKind.MODEL)
    if model.named is not None and model.named.weights_artifact is not None:
        yield Reference("model.named.weights_artifact", model.named.weights_artifact, ArtifactKind.WEIGHTS)
    for split, part in (("train", spec.data.train), ("validation", spec.data.validation)):
        if part is not None and part.artifact is not None:
            yield Reference(f"data.{split}.artifact", part.artifact, ArtifactKind.DATA)


def server_paths(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yields the field and the path of every place on the server's disk that a spec names."""
    for split, part in (("train", spec.data.train), ("validation", spec.data.validation)):
        if part is not None and part.server_path is not None:
            yield f"data.{split}.server_path", part.server_path


@dataclass(frozen=True)
class Reach:
    """What a spec may name.

    Attributes:
        artifacts: Where artifacts are kept.
        roots: Folders that server paths must lie under.
        principal: Whose artifacts may be named; None for everybody's.
    """

    artifacts: ArtifactStore
    roots: tuple[Path, ...]
    principal: str | None = None


def check_references(spec: JobSpec, reach: Reach, prefix: str) -> None:
    """Makes sure that everything a spec names is there and is what it should be.

    Args:
        spec: The spec.
        reach: What it may name.
        prefix: What goes before field paths, e.g. `spec.`.

    Raises:
        InvalidRequestError: Something is not; all violations at once.
    """
    found = [_artifact_violation(item, reach, prefix) for item in artifact_references(spec)]
    found += [_path_violation(field, path, reach.roots, prefix) for field, path in server_paths(spec)]
    if broken := [item for item in found if item is not None]:
        raise InvalidRequestError(broken)


def check_strategy(choice: StrategyChoice, prefix: str) -> None:
    """Makes sure that the strategy exists and takes these options.

    Raises:
        InvalidRequestError: It does not exist, or an option does not fit.
    """
    strategy = STRATEGIES.get(choice.name)
    if strategy is None:
        known = ", ".join(sorted(STRATEGIES))
        raise InvalidRequestError(
            [Violation(f"{prefix}strategy.name", f"there is no strategy {choice.name!r}; there are: {known}")]
        )
    try:
        strategy.parse(choice.options)
    except OptionError as exc:
        raise InvalidRequestError([Violation(f"{prefix}strategy.options.{exc.field}", str(exc))]) from exc


def own_devices() -> Sequence[str] | None:
    """Returns the devices of this machine. Asks its driver the first time, which may take a moment."""
    from deploy.gpu import list_devices

    return list_devices()


def check_target(
    target: Target, agents: AgentStore, prefix: str, own: Callable[[], Sequence[str] | None] = own_devices
) -> None:
    """Makes sure that the device exists and can run what it is to be measured with. An agent may be away just now.

    Args:
        target: The target.
        agents: Those that are known.
        prefix: What goes before field paths, e.g. `spec.`.
        own: Returns the devices where workers run; None where only running the job tells.

    Raises:
        DeviceMissingError: It does not exist, or cannot; the message says what there is.
    """
    if target.agent is None:
        _check_own(target, prefix, own())
        return
    known = {agent.name: agent for agent in agents.all()}
    agent = known.get(target.agent)
    if agent is None:
        there = ", ".join(found.target for found in known.values()) or "none"
        raise DeviceMissingError(
            f"{prefix}target.device: no agent is called {target.agent!r}; known are: {there}. "
            "`shoal agents add` makes one known"
        )
    if agent.device is None:
        raise DeviceMissingError(
            f"{prefix}target.device: {agent.target} was never heard of; start `shoal agent` on that machine first"
        )
    if (target.runtime, target.local_device) not in agent.runtimes:
        has = ", ".join(f"{runtime} on {device}" for runtime, device in agent.runtimes) or "none"
        raise DeviceMissingError(
            f"{prefix}target: {agent.target} has no {target.runtime} on {target.local_device}; it has: {has}"
        )


def _check_own(target: Target, prefix: str, found: Sequence[str] | None) -> None:
    if found is not None and target.local_device not in found:
        there = ", ".join(LOCAL + name for name in found)
        raise DeviceMissingError(f"{prefix}target.device: this server has no device '{target.device}'; it has: {there}")


def local_files(spec: JobSpec, artifacts: ArtifactStore, roots: tuple[Path, ...], folder: Path) -> dict[str, Path]:
    """Returns the local path of everything that a spec names, by artifact name and server path.

    Args:
        spec: The spec.
        artifacts: Where artifacts are kept.
        roots: Folders that server paths must lie under.
        folder: Where to put links or copies of artifacts.

    Raises:
        NotFoundError: An artifact is gone.
        InvalidRequestError: A path is gone, or leads out of the roots now.
        ArtifactDamagedError: An artifact's bytes are gone.
        DiskFullError: There is no room for a copy.
    """
    files = {
        item.name: artifacts.local_path(_artifact(item.name, Reach(artifacts, roots)), folder)
        for item in artifact_references(spec)
    }
    for field, path in server_paths(spec):
        if violation := _path_violation(field, path, roots, "spec."):
            raise InvalidRequestError([violation])
        files[path] = Path(path).resolve()
    return files


def _artifact(name: str, reach: Reach) -> Artifact:
    return reach.artifacts.get(name.removeprefix(ARTIFACT_PREFIX), reach.principal)


def _artifact_violation(reference: Reference, reach: Reach, prefix: str) -> Violation | None:
    field = prefix + reference.field
    try:
        artifact = _artifact(reference.name, reach)
    except NotFoundError:
        return Violation(field, f"there is no {reference.name}; upload the file first")
    if artifact.kind != reference.kind:
        return Violation(field, f"{reference.name} is of kind {artifact.kind}, and this field takes {reference.kind}")
    return None


def _path_violation(field: str, path: str, roots: tuple[Path, ...], prefix: str) -> Violation | None:
    if "\0" in path or not Path(path).is_absolute():
        return Violation(prefix + field, "must be an absolute path on the server")
    resolved = Path(path).resolve()
    # The same words whether it exists or not: nobody shall explore the disk this way.
    if not any(resolved.is_relative_to(root) for root in roots):
        return Violation(prefix + field, "does not lie under a folder that this server's operator allows (data_roots)")
    if not resolved.exists():
        return Violation(prefix + field, "does not exist on the server")
    return None
