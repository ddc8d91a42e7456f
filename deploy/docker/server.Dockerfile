# Coordinator and worker: one image, two commands. PYTHON may be given with a digest.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/fogline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY client client
COPY shared shared
# Where a CPU-only torch comes from is the builder's choice.
ARG PIP_EXTRA_INDEX_URL
# seglearn carries the smartwatch recipe's data; its code, and what that needs, is never imported.
RUN /opt/fogline/bin/pip install --no-cache-dir -c constraints.txt '.[server]' \
 && /opt/fogline/bin/pip install --no-cache-dir -c constraints.txt --no-deps seglearn

FROM ${PYTHON}
# The volumes' folders stand in the image, so that new volumes belong to the user who writes there.
RUN useradd --create-home --uid 10001 fogline \
 && install --directory --owner fogline --mode 0700 \
      /var/lib/fogline /var/lib/fogline/keys /var/lib/fogline/blobs /data
USER fogline
ENV PATH=/opt/fogline/bin:/usr/local/bin:/usr/bin:/bin
ENV FOGLINE_STATE_DIR=/var/lib/fogline FOGLINE_DATA_DIR=/data
COPY --from=build /opt/fogline /opt/fogline
CMD ["fogline", "coordinator"]
