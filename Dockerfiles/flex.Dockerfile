# All three stages in one, for pods that change their stage in place.
#
#   docker build -f Dockerfiles/flex.Dockerfile --build-arg BASE=IMAGE --build-arg VERSION=VERSION .
#
# BASE is what dependencies.Dockerfile makes of the lock requirements/stage.txt; dist/ has the wheel.
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
LABEL org.opencontainers.image.title="disagfusion-flex" \
      org.opencontainers.image.description="DisagFusion stages in one image, for pods that change their stage in place" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=code /code /opt/disagfusion/lib/python3.11/site-packages
EXPOSE 7430 7431 7440-7499 9464
USER 65532:65532
ENTRYPOINT ["/opt/disagfusion/bin/python", "-m"]
# Or disagfusion_encoder, disagfusion_decoder.
CMD ["disagfusion_dit"]
