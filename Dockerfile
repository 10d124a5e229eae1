# One image for head, workers and jobs. The default torch computes on CPUs and GPUs; for the smaller CPU build pass the
# package index that has it: docker build --build-arg TORCH_INDEX=… .
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY yolo_dist yolo_dist
COPY datasets datasets
COPY launch launch
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home yolo
USER yolo
WORKDIR /home/yolo
CMD ["yolo-dist", "--help"]
