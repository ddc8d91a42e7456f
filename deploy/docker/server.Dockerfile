# Coordinator and worker: one image, two commands.
FROM python:3.11-slim-bookworm
WORKDIR /opt/fogline
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY client client
COPY shared shared
# seglearn carries the smartwatch recipe's data; the other parts of the extra `demo` have no place in a deployment.
RUN pip install --no-cache-dir -c constraints.txt '.[server]' seglearn \
 && useradd --create-home --uid 10001 fogline \
 && mkdir /var/lib/fogline && chown fogline /var/lib/fogline
USER fogline
ENV FOGLINE_STATE_DIR=/var/lib/fogline
VOLUME /var/lib/fogline
CMD ["fogline", "coordinator"]
