#!/usr/bin/env bash
# Copies influxd and caddy out of their official images into the folder $1, at the versions that docker-compose.yml uses.
set -euo pipefail

folder="$1"
mkdir -p "$folder"

# $1: image, $2: program
copy() {
  docker run --rm --entrypoint sh "$1" -c "cat \"\$(command -v $2)\"" > "$folder/$2"
  chmod +x "$folder/$2"
}

copy influxdb:2.7 influxd
copy caddy:2.11 caddy
"$folder/influxd" version
"$folder/caddy" version
