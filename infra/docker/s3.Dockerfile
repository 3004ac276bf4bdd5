# An S3 store on a folder: the Versity gateway, whose credentials are read from secrets. Build from the repository root:
#   docker build -f infra/docker/s3.Dockerfile -t acclimate-s3 .
FROM ghcr.io/versity/versitygw:v1.7.0
# A bucket is a folder of the volume; a new volume takes its content and owner from here.
RUN mkdir -p /data/mlflow && chown -R 10001:10001 /data
COPY infra/docker/s3-start.sh /usr/local/bin/s3-start.sh
USER 10001:10001
EXPOSE 7070
ENTRYPOINT ["/bin/sh", "/usr/local/bin/s3-start.sh"]
