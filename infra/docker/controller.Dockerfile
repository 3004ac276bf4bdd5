# The controller: promotes and signs, with MLflow and without torch. Build from the repository root:
#   docker build -f infra/docker/controller.Dockerfile -t acclimate-controller .
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
# uv by the version and hashes of the lock file; then the extra's packages at the lock's versions, each checked
# against the lock's hashes (given as constraints, so that nothing but this extra is installed).
RUN sed -n '/^uv==/,/^    #/p' requirements.lock | sed '$d' > uv.txt \
 && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r uv.txt
RUN sed -n '/^setuptools==/,/^    #/p' requirements.lock | sed '$d' > build.txt \
 && pip install --no-cache-dir --disable-pip-version-check --require-hashes -r build.txt \
 && uv pip compile -q --no-header --no-annotate --extra registry -c requirements.lock -o registry.in pyproject.toml \
 && uv venv -q /opt/acclimate \
 && uv pip install -q --no-cache --python /opt/acclimate/bin/python --require-hashes -r registry.in -c requirements.lock
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
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["acclimate"]
