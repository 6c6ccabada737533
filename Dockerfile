# The operator. Build from the repository root:
#   docker build -t ratchet-operator .
# BASE is any image with Python 3.11 or newer as `python3`, with venv and pip.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
COPY requirements.txt /opt/ratchet/requirements.txt
RUN python3 -m venv /opt/ratchet/venv \
 && /opt/ratchet/venv/bin/pip install --no-cache-dir --require-hashes \
      -r /opt/ratchet/requirements.txt
COPY operator/ratchet /opt/ratchet/lib/ratchet
# Compiled here, because the container's root file system is read-only.
RUN /opt/ratchet/venv/bin/python -m compileall -q /opt/ratchet/lib
# USER: uid 65532 has no passwd entry, and kopf asks who it is.
ENV USER=ratchet HOME=/tmp \
    PATH=/opt/ratchet/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/ratchet/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "ratchet.shell.main"]
