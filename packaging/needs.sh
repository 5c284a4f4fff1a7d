#!/bin/bash
# Installs the Debian packages that a mount (fuse3) and the tests (the rest)
# use, as far as they are missing. Names them when it may not install.
set -euo pipefail
declare -A of=( [fusermount3]=fuse3 [fio]=fio [sqlite3]=sqlite3 [setfacl]=acl [getfattr]=attr [rsync]=rsync
  [ip]=iproute2 [git]=git [chromium]=chromium [dbench]=dbench [nft]=nftables )
missing=()
for tool in "${!of[@]}"; do
  command -v "$tool" >/dev/null || missing+=("${of[$tool]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed: ${missing[*]} (the tests that need them are skipped)" >&2
  exit 0
fi
echo "installing ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
