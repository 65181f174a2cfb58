# A Shoal server on CPU. The steps are those of `make setup` without the demo's and the developers' extras.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY service service
COPY protos protos
COPY compressors compressors
COPY deploy deploy
RUN python -m venv /opt/shoal \
    && /opt/shoal/bin/pip install --no-cache-dir -c constraints.txt '.[server]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 shoal && install -d -o shoal /var/lib/shoal
COPY --from=build /opt/shoal /opt/shoal
ENV PATH=/opt/shoal/bin:$PATH
USER 10001
VOLUME /var/lib/shoal
EXPOSE 50051
HEALTHCHECK --interval=30s --timeout=5s CMD ["python", "-c", "import grpc, sys; from grpc_health.v1 import health_pb2 as h, health_pb2_grpc as g; sys.exit(g.HealthStub(grpc.insecure_channel('127.0.0.1:50051')).Check(h.HealthCheckRequest(), timeout=3).status != 1)"]
ENTRYPOINT ["shoal", "serve", "--address", "0.0.0.0:50051", "--allow-remote", "--state-dir", "/var/lib/shoal"]
