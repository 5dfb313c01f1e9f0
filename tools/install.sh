#!/usr/bin/env bash
# Installs what the tests need besides the Rust toolchain. Does nothing when all of it is there.
set -euo pipefail

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need cc gcc
need c++ g++
need cmake cmake
need ip iproute2
need nft nftables
need strace strace
need sipp sip-tester
need baresip baresip-core
need linphonec linphone-cli
need valgrind valgrind
need python3 python3
need openssl openssl
need dnsmasq dnsmasq-base
need chromium chromium
need node nodejs
need npm npm
if [ "${#packages[@]}" -gt 0 ]; then
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi
    echo "installing: ${packages[*]}"
    $as_root apt-get update -q
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
fi

# The browser's phone: JsSIP and its page in one file.
browser=$(dirname "$0")/../e2e/browser
if [ ! "$browser/dist/phone.js" -nt "$browser/phone.js" ] || [ "$browser/package-lock.json" -nt "$browser/dist/phone.js" ]; then
    npm ci --prefix "$browser" --no-audit --no-fund
    npm run build --prefix "$browser"
fi
