#!/bin/sh
# Start the S3 store with the credentials of the secrets: the gateway takes them from its environment only.
set -eu
ROOT_ACCESS_KEY_ID=$(cat /run/secrets/s3_access_key)
ROOT_SECRET_ACCESS_KEY=$(cat /run/secrets/s3_secret_key)
export ROOT_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY
exec /usr/local/bin/versitygw --port :7070 --health /health --quiet posix /data
