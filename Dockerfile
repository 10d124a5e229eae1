# One image for head, workers and jobs. GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY yolo_dist yolo_dist
COPY datasets datasets
COPY launch launch
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home yolo
USER yolo
WORKDIR /home/yolo
CMD ["yolo-dist", "--help"]
