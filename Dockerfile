# syntax=docker/dockerfile:1
# A Shoal server on processors (target `cpu`, the last one and so the default) or NVIDIA GPUs (`gpu`), and a device agent
# for processors (`agent`). See docs/deployment.md.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS user
RUN useradd --create-home --uid 10001 --user-group shoal \
    && install -d -o shoal -g shoal -m 700 /var/lib/shoal
# Engines, timing caches and the key to their seals are kept in the volume: containers may have a root that is read-only.
ENV PATH=/opt/shoal/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/var/lib/shoal
VOLUME /var/lib/shoal
ENTRYPOINT ["shoal"]

# The distribution without its dependencies: some megabytes, made anew with every change of the code.
FROM user AS wheel
WORKDIR /src
COPY pyproject.toml README.md ./
COPY protos protos
COPY compressors compressors
COPY deploy deploy
COPY service service
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# The dependencies without the distribution: gigabytes, made anew only when they change.
FROM user AS dependencies
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
RUN python -m venv /opt/shoal

FROM dependencies AS dependencies-cpu
ARG EXTRAS=server,web
ARG PIP_EXTRA_INDEX_URL
RUN /opt/shoal/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
    && /opt/shoal/bin/pip uninstall --yes shoal

FROM dependencies AS dependencies-gpu
ARG EXTRAS=engine,cuda,web
ARG PIP_EXTRA_INDEX_URL
RUN /opt/shoal/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
    && /opt/shoal/bin/pip uninstall --yes shoal

FROM dependencies AS dependencies-agent
ARG EXTRAS=agent
ARG PIP_EXTRA_INDEX_URL
RUN /opt/shoal/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
    && /opt/shoal/bin/pip uninstall --yes shoal

FROM user AS agent
COPY --from=dependencies-agent /opt/shoal /opt/shoal
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/shoal/bin/pip install --no-cache-dir --no-deps /dist/*.whl
USER 10001
CMD ["agent", "--help"]

FROM user AS server
EXPOSE 50051
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["shoal", "health"]
CMD ["serve", "--address", "0.0.0.0:50051", "--insecure-remote", "--state-dir", "/var/lib/shoal"]

FROM server AS gpu
# What the NVIDIA container toolkit puts into the container.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-gpu /opt/shoal /opt/shoal
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/shoal/bin/pip install --no-cache-dir --no-deps /dist/*.whl
USER 10001

FROM server AS cpu
COPY --from=dependencies-cpu /opt/shoal /opt/shoal
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/shoal/bin/pip install --no-cache-dir --no-deps /dist/*.whl
USER 10001
