# The server, and nothing else: one static binary in an empty image.

FROM golang:1.26-alpine AS build
WORKDIR /src

# Modules first, so that a change of code does not download them again.
COPY go.mod go.sum ./
RUN go mod download

COPY snowflake snowflake
COPY internal internal
COPY server server
# The version that /metrics and `server version` show:
#   docker compose build --build-arg VERSION=…
ARG VERSION=devel
# No cgo: there is no libc in the image.
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -X snowlink/internal/buildinfo.version=${VERSION}" -o /server ./server

FROM scratch

# For rediss://, which checks the certificate of Redis.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /server /server

# A number, because the image has no /etc/passwd to look a name up in.
USER 65532:65532

# HTTP, and the metrics if METRICS_LISTEN is :9100. By default they are on the loopback,
# which nobody outside of the container reaches.
EXPOSE 8000 9100

# Healthy means: Redis answers, and the backend holds its node ID.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["/server", "ping"]

ENTRYPOINT ["/server"]
