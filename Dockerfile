# The server, and nothing else: one static binary in an empty image.

FROM golang:1.26-alpine AS build
WORKDIR /src

# Modules first: a change of code downloads none of them again.
COPY go.mod go.sum ./
RUN go mod download

COPY snowflake snowflake
COPY server server
# No cgo: there is no libc in the image. A server/default.pgo is used if there is
# one (-pgo=auto is the default).
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /server ./server

FROM scratch

# For rediss://.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /server /server

# A number, since there is no /etc/passwd to look a name up in.
USER 65532:65532

# HTTP, and the metrics' own listener.
EXPOSE 8000 9100

# Ready: Redis answers and the node ID is held.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["/server", "ping"]

ENTRYPOINT ["/server"]
