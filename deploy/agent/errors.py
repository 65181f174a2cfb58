"""What stops an agent."""

from __future__ import annotations

from deploy.errors import DeployError


class AgentError(DeployError):
    """The agent cannot go on; the message is fit for the user."""


class RefusedError(AgentError):
    """The server does not take this agent: its token is not known, or another process speaks for it."""


class StoppedError(AgentError):
    """Somebody asked the agent to stop."""


class UnwantedError(AgentError):
    """The server does not want a piece of work any more."""
