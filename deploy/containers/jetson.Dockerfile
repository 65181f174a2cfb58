# syntax=docker/dockerfile:1
# A device agent for Jetsons, without torch. Build it on a Jetson, from the folder that holds pyproject.toml:
#     docker build -f deploy/containers/jetson.Dockerfile -t shoal-agent:jetson .
# The base brings TensorRT and its Python bindings, and must fit the JetPack of the device; Shoal needs Python 3.11 or newer.
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3

FROM ${BASE} AS wheel
WORKDIR /src
COPY pyproject.toml README.md ./
COPY protos protos
COPY compressors compressors
COPY deploy deploy
COPY service service
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM ${BASE}
# The groups `video` and `render` own the GPU's device files.
RUN useradd --create-home --uid 10001 --user-group shoal \
    && { getent group render > /dev/null || groupadd --system render; } \
    && usermod --append --groups video,render shoal \
    && install -d -o shoal -g shoal -m 700 /var/lib/shoal
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
# With the system's packages: TensorRT's bindings are among them.
RUN python3 -m venv --system-site-packages /opt/shoal \
    && /opt/shoal/bin/pip install --no-cache-dir -c constraints.txt '.[jetson]' \
    && /opt/shoal/bin/pip uninstall --yes shoal
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/shoal/bin/pip install --no-cache-dir --no-deps /dist/*.whl
# Engines, timing caches and the key to their seals are kept here: mount a volume.
ENV PATH=/opt/shoal/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/var/lib/shoal
VOLUME /var/lib/shoal
USER 10001
ENTRYPOINT ["shoal"]
CMD ["agent", "--help"]
