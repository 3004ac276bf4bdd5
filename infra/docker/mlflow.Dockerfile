# MLflow's own image with what it needs for PostgreSQL and S3, not run as root. Build from the repository root:
#   docker build -f infra/docker/mlflow.Dockerfile -t acclimate-mlflow .
FROM ghcr.io/mlflow/mlflow:v3.17.2
RUN pip install --no-cache-dir --disable-pip-version-check psycopg2-binary==2.9.13 boto3==1.44.8 \
 && useradd --uid 10001 --create-home --shell /usr/sbin/nologin mlflow
COPY infra/docker/mlflow-start.sh /usr/local/bin/mlflow-start.sh
USER 10001:10001
WORKDIR /tmp
EXPOSE 5000
# Job workers are of no use here and cost a second each start.
ENV MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_DISABLE_TELEMETRY=true
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
CMD ["/bin/sh", "/usr/local/bin/mlflow-start.sh"]
