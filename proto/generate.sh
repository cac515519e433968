#!/bin/sh
# Generates the protobuf codecs below src/gen (not in git) from the .proto files here, when they are older than these.
set -eu
cd "$(dirname "$0")/.."
mkdir -p src/gen
generate() { # output, extra flags, inputs...
  out=src/gen/$1.js; fresh=src/gen/.$1.$$; flags=$2; shift 2
  newest=$(ls -t "$@" "$out" 2>/dev/null | head -1)
  [ "$newest" = "$out" ] && return 0
  # shellcheck disable=SC2086 # flags are several words
  npx --no-install pbjs -t static-module -w es6 --dts $flags -o "$fresh.js" "$@"
  # Node's ESM resolver wants the file's extension.
  sed -i 's#"protobufjs/minimal"#"protobufjs/minimal.js"#' "$fresh.js"
  # Complete or not at all: a build that is interrupted, or beside another one, leaves no half of a file.
  mv "$fresh.d.ts" "${out%.js}.d.ts"
  mv "$fresh.js" "$out"
}
generate agent "" proto/phaul/v1/agent.proto
generate criu-rpc "--keep-case" proto/criu/rpc.proto
generate criu-images "--keep-case" proto/criu/images.proto
