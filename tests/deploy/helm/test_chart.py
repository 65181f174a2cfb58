from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.cli.serve import DEFAULT_ADDRESS, WEB_ADDRESS, serve
from tests.deploy.helm.render import CHART, Chart, merge, parse
from tests.deploy.helm.validate import VARIANTS, VERSIONS

ROOT = Path(__file__).parents[3]


def of_kind(kind: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    (found,) = [each for each in Chart(values).manifests() if each["kind"] == kind]
    return found


def pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("StatefulSet", values)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_everything_that_the_chart_makes_fits_the_schemas_of_kubernetes(variant: str, version: str) -> None:
    kinds = []
    for manifest in Chart(VARIANTS[variant]).manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
        kinds.append(manifest["kind"])
    expected = {"StatefulSet", "Service", "NetworkPolicy"}
    assert set(kinds) == (expected - {"NetworkPolicy"} if variant == "open to all" else expected)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_values_fit_their_own_schema(variant: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(Chart(VARIANTS[variant]).values, schema)


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"worker": 1}, {"persistence": {"size": "50"}}, {"gpu": {"count": 0}}]
)
def test_values_that_make_no_sense_are_refused_before_anything_is_installed(wrong: dict[str, Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merge(Chart().values, wrong), schema)


def test_every_value_has_its_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) | {"global"} == set(schema["properties"])


def test_the_chart_says_the_version_that_the_distribution_has() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert about["appVersion"] == version[1]


def test_the_arguments_are_those_that_serve_takes() -> None:
    (container,) = pod()["containers"]
    known = {option for parameter in serve.params for option in parameter.opts}
    given = [argument.partition("=")[0] for argument in container["args"]]
    assert given[0] == serve.name
    assert set(given[1:]) <= known


def test_the_port_is_the_one_that_the_server_listens_on() -> None:
    port = int(DEFAULT_ADDRESS.rpartition(":")[2])
    (container,) = pod()["containers"]
    assert container["ports"] == [{"name": "grpc", "containerPort": port}]
    assert {container[f"{kind}Probe"]["grpc"]["port"] for kind in ("startup", "readiness", "liveness")} == {port}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_pod_has_no_more_rights_than_it_needs(variant: str) -> None:
    spec = pod(VARIANTS[variant])
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_gpu_is_asked_for_only_where_it_is_wanted() -> None:
    (plain,), (with_gpu,) = pod()["containers"], pod({"gpu": {"enabled": True, "count": 2}})["containers"]
    assert "nvidia.com/gpu" not in plain["resources"]["limits"]
    assert with_gpu["resources"]["limits"] == {**plain["resources"]["limits"], "nvidia.com/gpu": 2}


def test_the_state_survives_the_pod() -> None:
    stateful = of_kind("StatefulSet")["spec"]
    (container,) = stateful["template"]["spec"]["containers"]
    assert {"name": "state", "mountPath": "/var/lib/shoal"} in container["volumeMounts"]
    assert stateful["volumeClaimTemplates"][0]["metadata"]["name"] == "state"
    assert stateful["replicas"] == 1


def test_only_the_namespace_may_connect_unless_more_is_said() -> None:
    assert of_kind("NetworkPolicy")["spec"]["ingress"][0]["from"] == [{"podSelector": {}}]
    peers = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    assert of_kind("NetworkPolicy", {"networkPolicy": {"from": peers}})["spec"]["ingress"][0]["from"] == peers


def test_the_service_finds_the_pod() -> None:
    labels = of_kind("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"].items() <= labels.items()


def test_the_notes_can_be_rendered() -> None:
    assert "statefulset/my-shoal" in Chart().render(CHART / "templates" / "NOTES.txt")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a {{- .x }} b", "a"),
        ("{{ if .y }}1{{ else }}2{{ end }}", "2"),
        ("a\n  {{- with .x }}\n  b: {{ . }}\n  {{- end }}\n", "a\n  b: 7\n"),
    ],
)
def test_the_renderer_reads_templates_as_go_does(template: str, text: str) -> None:
    got = Chart()._write(parse(template), {"x": 7, "y": 0})
    assert got.startswith(text)


def test_the_renderer_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="the chart uses upper"):
        Chart()._write(parse("{{ .x | upper }}"), {"x": "a"})


def test_pages_have_a_port_where_they_are_asked_for() -> None:
    values = {"web": {"enabled": True, "port": 8080}}
    port = int(WEB_ADDRESS.rpartition(":")[2])
    (container,) = pod(values)["containers"]
    assert f"--web=0.0.0.0:{port}" in container["args"]
    assert {"name": "web", "containerPort": port} in container["ports"]
    assert {one["name"]: one["port"] for one in of_kind("Service", values)["spec"]["ports"]}["web"] == 8080
    assert {"port": "web"} in of_kind("NetworkPolicy", values)["spec"]["ingress"][0]["ports"]

    (container,) = pod()["containers"]
    assert not [argument for argument in container["args"] if argument.startswith("--web")]
    assert "web" not in str(of_kind("NetworkPolicy"))
