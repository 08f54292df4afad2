# One image for every process of Citadel: the API, the worker, the dispatcher, the scheduler and the migrations.
#
#   docker build -t citadel:0.1.0 .
#
# The lock names torch by its version. Where an index with CPU builds is given, pip takes its build, which is a fraction
# of the size:  docker build --build-arg PIP_EXTRA_INDEX_URL=… -t citadel:0.1.0 .

FROM python:3.12.12-slim-trixie AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/citadel/bin:$PATH
RUN python -m venv /opt/citadel
WORKDIR /build
COPY requirements.lock ./
RUN pip install -r requirements.lock
# .dockerignore lets nothing in but the packages and what builds them.
COPY . .
RUN pip install --no-deps .

FROM python:3.12.12-slim-trixie
ENV PATH=/opt/citadel/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    CITADEL_STATE=/data/state \
    CITADEL_BLOB_URL=file:///data/blobs
# Sources of the kind git are fetched by the program itself; tesseract reads scans where CITADEL_OCR=on.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git tesseract-ocr tesseract-ocr-eng \
 && rm -rf /var/lib/apt/lists/*
# Named volumes take their owner from these folders when they are first mounted.
RUN groupadd --gid 10001 citadel \
 && useradd --uid 10001 --gid citadel --no-create-home --home-dir /tmp --shell /usr/sbin/nologin citadel \
 && install --directory --owner=citadel --group=citadel --mode=0700 /data /data/blobs /data/state
COPY --from=build /opt/citadel /opt/citadel
USER citadel
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["citadel"]
CMD ["serve", "--host", "0.0.0.0"]
