#!/bin/bash
# Failover of Varve beside that of the deployment it replaces: MooseFS CE with
# keepalived, metalogger and unison from Debian's packages, on the same machines
# (network namespaces) and under the same load. Prints a table for each.
# usage: perf/oldway.sh [ROUNDS=3]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends keepalived unison inotify-tools \
  moosefs-master moosefs-metalogger moosefs-chunkserver moosefs-client >/dev/null
make -s build
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
go build -o "$tool/oldway" ./perf/oldway
echo "MooseFS CE $(mfsmaster -v 2>&1 | sed -n 's/.*version: //p'), $(keepalived --version 2>&1 | head -1 | cut -d' ' -f2), unison $(unison -version | cut -d' ' -f3)"
"$tool/oldway" --rounds "$rounds" --work 40s
echo "Varve $(git describe --always --dirty)"
"$tool/oldway" --varve --rounds "$rounds" --work 20s
