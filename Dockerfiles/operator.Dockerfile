# Reconciles DiffusionPipelines and keeps the ratio of their stages.
#
#   docker build -f Dockerfiles/operator.Dockerfile --build-arg BASE=IMAGE --build-arg VERSION=VERSION .
#
# BASE is what dependencies.Dockerfile makes of the lock requirements/operator.txt; dist/ has the wheel.
ARG BASE

FROM ${BASE} AS code
ARG VERSION
USER 0
RUN --mount=type=bind,target=/mnt \
    python -m zipfile -e "/mnt/dist/disagfusion-${VERSION}-py3-none-any.whl" /code \
    && python -m compileall -q -s /code -p /opt/disagfusion/lib/python3.11/site-packages \
        --invalidation-mode unchecked-hash /code

FROM ${BASE}
ARG VERSION
LABEL org.opencontainers.image.title="disagfusion-operator" \
      org.opencontainers.image.description="DisagFusion operator: reconciles DiffusionPipelines and balances their stages" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=code /code /opt/disagfusion/lib/python3.11/site-packages
# Decisions are computed in threads; with an arena of memory for each, what one has freed helps no other.
ENV MALLOC_ARENA_MAX=1
EXPOSE 8080 9464
USER 65532:65532
ENTRYPOINT ["/opt/disagfusion/bin/python", "-m", "disagfusion_operator"]
