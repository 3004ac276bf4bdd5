#!/bin/sh
# Start MLflow's server with the passwords of the secrets: in no image, compose file or command line.
set -eu
AWS_ACCESS_KEY_ID=$(cat /run/secrets/s3_access_key)
AWS_SECRET_ACCESS_KEY=$(cat /run/secrets/s3_secret_key)
PGPASSWORD=$(cat /run/secrets/postgres_password)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY PGPASSWORD
exec mlflow server --host 0.0.0.0 --port 5000 --workers 1 \
  --backend-store-uri postgresql+psycopg2://mlflow@postgres:5432/mlflow \
  --serve-artifacts --artifacts-destination s3://mlflow \
  --allowed-hosts mlflow:5000,localhost:5000,127.0.0.1:5000
