"""The images install what the Makefile installs, under the same constraints, and start what there is."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from service.cli.app import shoal
from service.cli.serve import DEFAULT_ADDRESS, WEB_ADDRESS, serve
from tests.deploy.helm.render import Chart

ROOT = Path(__file__).parents[3]
SERVER = ROOT / "Dockerfile"
JETSON = ROOT / "deploy" / "containers" / "jetson.Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def instructions(path: Path, name: str) -> list[str]:
    """Returns every use of an instruction, lines joined."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    return re.findall(rf"^{name} (.+)$", text, re.MULTILINE)


def environment(path: Path, target: str = "") -> dict[str, str]:
    """Returns what a target, the last one where it has no name, sets and takes over from the stages below it."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    below = {name: (base, body) for base, name, body in stages}
    found: dict[str, str] = {}
    while target in below:
        target, body = below[target]
        lines = re.findall(r"^ENV (.+)$", body, re.MULTILINE)
        found = dict(pair.split("=", 1) for line in lines for pair in line.split()) | found
    return found


def is_below(path: str, folders: list[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def extras(path: Path) -> set[str]:
    """Returns the extras that a Dockerfile installs, its arguments filled in."""
    written = [found for line in instructions(path, "ARG") for found in re.findall(r"^EXTRAS=(.+)$", line)]
    written += [found for line in instructions(path, "RUN") for found in re.findall(r"'\.\[([\w,-]+)\]'", line)]
    return {name for names in written for name in names.split(",")}


def distributions(extra: str) -> set[str]:
    """Returns what an extra installs, extras of our own resolved."""
    found: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        inner = re.fullmatch(r"shoal\[(.+)\]", requirement)
        found |= distributions(inner[1]) if inner else {re.split(r"[<>=\[;]", requirement)[0]}
    return found


@pytest.mark.parametrize("path", [SERVER, JETSON])
def test_images_install_extras_that_there_are_under_the_constraints(path: Path) -> None:
    assert extras(path) <= set(PROJECT["optional-dependencies"])
    installs = [line for line in instructions(path, "RUN") if "pip install" in line and "--no-deps" not in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def test_the_server_on_processors_has_what_make_setup_tests() -> None:
    setup = re.search(r"pip install .* -e '\.\[([\w,]+)\]'", MAKEFILE)
    assert setup
    assert distributions("server") <= set().union(*(distributions(name) for name in setup[1].split(",")))


def test_the_agent_is_installed_as_make_check_agent_does() -> None:
    target = MAKEFILE.split("\ncheck-agent:\n")[1].split("\n\n")[0]
    assert "-c constraints.txt" in target
    assert "[agent]" in target
    assert "agent" in extras(SERVER)


@pytest.mark.parametrize(
    "together", [{"engine", "cuda"}, {"server"}, {"agent"}, {"jetson"}, {"engine", "cuda", "tensorrt"}]
)
def test_no_image_installs_both_distributions_of_onnx_runtime(together: set[str]) -> None:
    installed = set().union(*(distributions(name) for name in together))
    assert len(installed & {"onnxruntime", "onnxruntime-gpu"}) <= 1


@pytest.mark.parametrize("extra", ["agent", "jetson", "cuda", "tensorrt"])
def test_what_a_device_installs_is_no_torch(extra: str) -> None:
    assert not distributions(extra) & {"torch", "torchvision", "timm", "pyarrow"}


@pytest.mark.parametrize("path", [SERVER, JETSON])
def test_images_run_as_the_user_that_owns_the_state(path: Path) -> None:
    stages = re.split(r"^FROM ", path.read_text(), flags=re.MULTILINE)
    final = [stage for stage in stages if "--mount=type=bind,from=wheel" in stage]
    assert final
    assert all("USER 10001" in stage for stage in final)
    assert any("--uid 10001" in line and "install -d -o shoal" in line for line in instructions(path, "RUN"))


def test_the_server_is_started_with_options_that_it_takes() -> None:
    command = next(json.loads(line) for line in instructions(SERVER, "CMD") if "serve" in line)
    known = {option for parameter in serve.params for option in parameter.opts}
    assert command[0] in shoal.commands
    assert {word for word in command if word.startswith("--")} <= known
    assert instructions(SERVER, "EXPOSE") == [DEFAULT_ADDRESS.rpartition(":")[2]]


def test_health_is_asked_with_a_command_that_there_is() -> None:
    (check,) = instructions(SERVER, "HEALTHCHECK")
    program, command = json.loads(check.partition("CMD ")[2])
    assert program in PROJECT["scripts"]
    assert command in shoal.commands


def test_the_default_target_is_the_server_on_processors() -> None:
    assert instructions(SERVER, "FROM")[-1].endswith(" AS cpu")


def test_python_is_the_one_that_the_makefile_takes_first() -> None:
    (version,) = {line.removeprefix("PYTHON=") for line in instructions(SERVER, "ARG") if line.startswith("PYTHON=")}
    assert f"command -v python{version}" in MAKEFILE


def test_compose_builds_targets_that_there_are_and_mounts_the_state() -> None:
    path = ROOT / "deploy" / "containers" / "compose.yaml"
    services = yaml.safe_load(path.read_text())["services"]
    targets = {line.rpartition(" AS ")[2] for line in instructions(SERVER, "FROM")}
    for service in services.values():
        assert (path.parent / service["build"]["context"]).resolve() == ROOT
        assert service["build"]["target"] in targets
        assert service["read_only"] is True
        assert service["volumes"][0].endswith(":/var/lib/shoal")
    addresses = (DEFAULT_ADDRESS, WEB_ADDRESS)
    assert services["server"]["ports"] == [f"{each}:{each.rpartition(':')[2]}" for each in addresses]


def known_variables(command: str) -> set[str]:
    """Returns the environment variables that a command's options are read from."""
    found: set[str] = set()
    for parameter in shoal.commands[command].params:
        names = parameter.envvar or ()
        found |= {names} if isinstance(names, str) else set(names)
    return found


@pytest.mark.parametrize(("service", "command"), [("server", "serve"), ("server-gpu", "serve"), ("agent", "agent")])
def test_compose_sets_variables_that_are_read(service: str, command: str) -> None:
    path = ROOT / "deploy" / "containers" / "compose.yaml"
    given = yaml.safe_load(path.read_text())["services"][service]["environment"]
    assert set(given) <= known_variables(command) | {"SHOAL_AGENT_TOKEN"}


@pytest.mark.parametrize("path", [SERVER, JETSON])
def test_images_of_agents_start_a_command_that_there_is(path: Path) -> None:
    commands = [json.loads(line) for line in instructions(path, "CMD")]
    assert ["agent", "--help"] in commands
    assert all(command[0] in shoal.commands for command in commands)


def test_services_with_a_read_only_root_keep_caches_where_they_may_write() -> None:
    path = ROOT / "deploy" / "containers" / "compose.yaml"
    services = yaml.safe_load(path.read_text())["services"]
    for service in services.values():
        known = environment(SERVER, service["build"]["target"]) | service.get("environment", {})
        mounts = [mount.split(":")[1] for mount in service["volumes"]]
        assert is_below(known["XDG_CACHE_HOME"], mounts)


def test_the_pod_keeps_caches_where_it_may_write() -> None:
    (stateful,) = [each for each in Chart().manifests() if each["kind"] == "StatefulSet"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for target in ("cpu", "gpu"):
        assert is_below(environment(SERVER, target)["XDG_CACHE_HOME"], mounts)


def test_the_agent_on_a_jetson_keeps_caches_in_its_volume() -> None:
    assert is_below(environment(JETSON)["XDG_CACHE_HOME"], instructions(JETSON, "VOLUME"))


def test_the_context_has_everything_that_is_copied() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in (SERVER, JETSON):
        copied = [line.split()[:-1] for line in instructions(path, "COPY") if not line.startswith("--from")]
        assert {name for names in copied for name in names} <= allowed
