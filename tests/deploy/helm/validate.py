"""Checks what the chart makes against the schemas of Kubernetes: `python -m tests.deploy.helm.validate`."""

from __future__ import annotations

import sys
from typing import Any

import kubernetes_validate

from tests.deploy.helm.render import Chart

VERSIONS = ("1.27", "1.37")
"""The oldest that the chart says it takes, and the newest that there are schemas for."""

EVERYTHING: dict[str, Any] = {
    "image": {"tag": "0.1.0-gpu"},
    "imagePullSecrets": [{"name": "registry"}],
    "workers": 2,
    "extraArgs": ["--data-root", "/data"],
    "extraEnv": [{"name": "OMP_NUM_THREADS", "value": "4"}],
    "web": {"enabled": True, "port": 8080},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "persistence": {"storageClass": "fast", "retain": False},
    "gpu": {"enabled": True, "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "runtimeClassName": "nvidia"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {}},
    "podAnnotations": {"a": "b"},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"team": "vision"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "processors on chosen nodes": {"nodeSelector": {"kubernetes.io/arch": "amd64"}},
    "open to all": {"networkPolicy": {"enabled": False}},
}


def main() -> int:
    """Validates every variant; returns the exit status."""
    for name, values in VARIANTS.items():
        for manifest in Chart(values).manifests():
            for version in VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)
        sys.stdout.write(f"chart, {name}: ok\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
