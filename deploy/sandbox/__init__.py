"""Confines a process that is about to open what a stranger sent: files, network, system calls, for good."""

from deploy.sandbox.confine import Confined, Mode, Network, Policy, confine
from deploy.sandbox.probe import Layer, probe

__all__ = ["Confined", "Layer", "Mode", "Network", "Policy", "confine", "probe"]
