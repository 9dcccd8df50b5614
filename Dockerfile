# The image of all processes. Use the build argument if you cannot pull the builder's image:
#
#   docker build --build-arg BUILDER=registry.example.com/golang:1.26.8 .
#
# hack/verify checks that the builder has the toolchain of go.mod. Renovate (.github/renovate.json) adds and updates its digest.
ARG BUILDER=golang:1.26.8

# Go cross-compiles, so the builder runs on the platform of the build. Docker without BuildKit, and older versions of buildah and kaniko, do
# not set BUILDPLATFORM. With them, on another machine than amd64: --build-arg BUILDPLATFORM=linux/arm64.
FROM --platform=${BUILDPLATFORM:-linux/amd64} ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -pgo=cmd/apikey-operator/authenticator.pgo -ldflags="-s -w -X squirrel.dev/apikey-operator/internal/version.release=${VERSION}" -o /apikey-operator ./cmd/apikey-operator
RUN GOOS=${TARGETOS} GOARCH=${TARGETARCH} hack/licenses ./cmd/apikey-operator >/THIRD_PARTY_LICENSES

# The program is static, trusts only the certificate authorities that it is given, and writes no files, so it needs no base. hack/oci builds
# the same image for releases.
FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title="apikey-operator" \
      org.opencontainers.image.description="API keys for services on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /src/LICENSE /THIRD_PARTY_LICENSES /apikey-operator /
USER 65532:65532
ENTRYPOINT ["/apikey-operator"]
