# An interpreter and the packages of one lock, the same for every image that runs from that lock.
# Nothing that compiles or installs is left in it.
#
#   docker build -f Dockerfiles/dependencies.Dockerfile --build-arg LOCK=gateway -t NAME .
ARG BASE=docker.io/library/python:3.11.13-slim-bookworm

FROM ${BASE} AS installer
# Of pip, for the installer itself: where from, and how.
ARG PIP_OPTIONS=""
RUN --mount=type=bind,target=/mnt \
    python3 -m venv /opt/installer \
    && /opt/installer/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --require-hashes ${PIP_OPTIONS} --requirement /mnt/requirements/bootstrap.txt

FROM ${BASE}
# The name of a file in requirements/, without its ending.
ARG LOCK
# Of uv: where packages come from, and how.
ARG UV_OPTIONS=""
RUN --mount=type=bind,target=/mnt --mount=type=bind,from=installer,source=/opt/installer,target=/media \
    export UV_CACHE_DIR=/opt/cache PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    && python3 -m venv --without-pip /opt/disagfusion \
    && /media/bin/uv pip install --quiet --python /opt/disagfusion/bin/python --compile-bytecode \
        --require-hashes ${UV_OPTIONS} --requirement "/mnt/requirements/${LOCK}.txt" \
    && rm -rf /opt/cache \
    && python3 /mnt/Dockerfiles/reduce.py /opt/disagfusion
# The base's own means to install are not needed either. Root's directory of what a process keeps
# belongs to the user that it runs as.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* \
        /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels \
    && echo 'disagfusion:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'disagfusion:x:65532:' >> /etc/group \
    && install -d -o 65532 -g 65532 /var/lib/disagfusion
# The root file system may be read-only: what is written goes to /tmp, /dev/shm and the directory
# that the process works in.
ENV HOME=/tmp \
    LANG=C.UTF-8 \
    PATH=/opt/disagfusion/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/disagfusion
USER 65532:65532
