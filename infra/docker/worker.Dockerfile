# A worker: `acclimate worker` on ONNX Runtime, without torch. Build from the repository root:
#   docker build -f infra/docker/worker.Dockerfile -t acclimate-worker .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
# uv by the version and hashes of the lock file; then the extra's packages at the lock's versions, each checked
# against the lock's hashes (given as constraints, so that nothing but this extra is installed).
RUN sed -n '/^uv==/,/^    #/p' requirements.lock | sed '$d' > uv.txt \
 && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r uv.txt
RUN sed -n '/^setuptools==/,/^    #/p' requirements.lock | sed '$d' > build.txt \
 && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r build.txt \
 && uv pip compile -q --no-header --no-annotate --extra worker -c requirements.lock -o worker.in pyproject.toml \
 && uv venv -q /opt/acclimate \
 && uv pip install -q --no-cache --python /opt/acclimate/bin/python --require-hashes -r worker.in -c requirements.lock
COPY adaptation ./adaptation
COPY infra ./infra
COPY registry ./registry
COPY streams ./streams
RUN pip wheel -q --no-deps --no-build-isolation -w /wheels . \
 && uv pip install -q --no-cache --python /opt/acclimate/bin/python --no-deps /wheels/*.whl

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin acclimate
COPY --from=build /opt/acclimate /opt/acclimate
ENV PATH=/opt/acclimate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ACCLIMATE_READY_FILE=/tmp/acclimate-ready
RUN install -d -o 10001 -g 10001 /state
USER 10001:10001
WORKDIR /tmp
# The worker touches the file every few seconds while it makes progress.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
  "import os, sys, time; sys.exit(time.time() - os.stat(os.environ['ACCLIMATE_READY_FILE']).st_mtime > 30)"]
ENTRYPOINT ["acclimate"]
CMD ["worker"]
