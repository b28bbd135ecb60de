# edgeseg with OpenVINO for CPUs: the server, and camera streams. docker build -t edgeseg:0.2.0 .
# Serve:  docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -p 127.0.0.1:8080:8080 -v $PWD/bundle:/bundle:ro edgeseg:0.2.0
# Stream: docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -e EDGESEG_HEALTH=http://127.0.0.1:9108/healthz \
#           -v $PWD/bundle:/bundle:ro edgeseg:0.2.0 run /bundle --source rtsp://... --sink null --metrics 127.0.0.1:9108
# Jetson boards have an image of their own: Dockerfile.jetson. Kubernetes: deploy/k8s. More: docs/how-to/containers.md.
FROM python:3.11.14-slim-bookworm AS base
SHELL ["/bin/sh", "-eu", "-c"]

FROM base AS build
# The compiler builds the class-map kernel and does not reach the image that ships.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends gcc libc6-dev && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY edgeseg edgeseg
# Byte code is compiled now: nothing can be written where it runs. pip itself is not needed there.
RUN python3 -m venv /opt/edgeseg && \
    /opt/edgeseg/bin/pip install --no-cache-dir --compile ".[openvino,serve,camera,metrics,mqtt,sign]" && \
    /opt/edgeseg/bin/pip uninstall -y pip setuptools

FROM base
RUN useradd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --uid 10001 --groups video edgeseg
COPY --from=build /opt/edgeseg /opt/edgeseg
# EDGESEG_CACHE: where engines that are built here are kept. /tmp is all that needs to be writable.
ENV PATH=/opt/edgeseg/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EDGESEG_CACHE=/tmp/edgeseg \
    EDGESEG_HEALTH=http://127.0.0.1:8080/healthz
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen(os.environ['EDGESEG_HEALTH'], timeout=4)"]
ENTRYPOINT ["edgeseg"]
CMD ["serve", "/bundle", "--host", "0.0.0.0", "--port", "8080"]
