# A device, in two sizes: target `edge` only infers (no torch, no flwr), target `train` also trains.
# PYTHON may be given with a digest; both stages must be of the same image.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS source
WORKDIR /src
RUN python -m venv /opt/fogline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY client client
COPY shared shared

FROM source AS build-edge
RUN /opt/fogline/bin/pip install --no-cache-dir -c constraints.txt '.[edge]'

FROM source AS build-train
# Where a CPU-only torch comes from is the builder's choice.
ARG PIP_EXTRA_INDEX_URL
# seglearn carries the smartwatch recipe's data; its code, and what that needs, is never imported.
RUN /opt/fogline/bin/pip install --no-cache-dir -c constraints.txt '.[edge,train]' \
 && /opt/fogline/bin/pip install --no-cache-dir -c constraints.txt --no-deps seglearn

FROM ${PYTHON} AS device
RUN useradd --create-home --uid 10001 fogline \
 && install --directory --owner fogline --mode 0700 /var/lib/fogline-agent
USER fogline
ENV PATH=/opt/fogline/bin:/usr/local/bin:/usr/bin:/bin
ENV FOGLINE_AGENT_STATE_DIR=/var/lib/fogline-agent
# Enrols once: later starts find the identity in the volume, and need no token.
CMD ["sh", "-c", "[ -f \"$FOGLINE_AGENT_STATE_DIR/identity.json\" ] || fogline-agent enroll || exit; exec fogline-agent run"]

FROM device AS train
COPY --from=build-train /opt/fogline /opt/fogline

FROM device AS edge
COPY --from=build-edge /opt/fogline /opt/fogline
