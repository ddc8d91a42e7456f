# A device. EXTRAS=edge only infers (no torch, no flwr); EXTRAS=edge,train also trains.
FROM python:3.11-slim-bookworm
ARG EXTRAS=edge
WORKDIR /opt/fogline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY client client
COPY shared shared
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
 && useradd --create-home --uid 10001 fogline \
 && mkdir /var/lib/fogline-agent && chown fogline /var/lib/fogline-agent
USER fogline
ENV FOGLINE_AGENT_STATE_DIR=/var/lib/fogline-agent
VOLUME /var/lib/fogline-agent
# Enrols once: later starts find the identity in the volume.
CMD ["sh", "-c", "[ -f \"$FOGLINE_AGENT_STATE_DIR/identity.json\" ] || fogline-agent enroll; exec fogline-agent run"]
