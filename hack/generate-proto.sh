#!/bin/sh
# Writes the Go code of every .proto file under models/tfserving beside it. Needs protoc (Debian: protobuf-compiler);
# the plugins are built at the versions that hack/tools/go.mod pins.
set -eu
cd "$(dirname "$0")/.."
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
go build -modfile=hack/tools/go.mod -o "$plugins/" \
  google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
PATH="$plugins:$PATH" protoc -I . \
  --go_out=. --go_opt=paths=source_relative \
  --go-grpc_out=. --go-grpc_opt=paths=source_relative \
  models/tfserving/tensorflow/*.proto models/tfserving/serving/*.proto
