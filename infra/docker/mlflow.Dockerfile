# MLflow's own image, not run as root, with a folder that its user may write to.
FROM ghcr.io/mlflow/mlflow:v3.17.2
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin mlflow \
 && install -d -o 10001 -g 10001 /mlflow
USER 10001:10001
WORKDIR /mlflow
EXPOSE 5000
# Job workers are of no use here and cost a second each start; SQLite serves one machine.
ENV MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_DISABLE_TELEMETRY=true
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1", \
  "--backend-store-uri", "sqlite:////mlflow/mlflow.db", "--artifacts-destination", "/mlflow/artifacts", \
  "--allowed-hosts", "mlflow:5000,localhost:5000,127.0.0.1:5000"]
