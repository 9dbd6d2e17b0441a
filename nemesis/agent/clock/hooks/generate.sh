#!/bin/sh
# Assembles the hooks: generate.sh [DIRECTORY] writes amd64.bin and arm64.bin there, by
# default beside their sources. It needs binutils for both machines (on Debian:
# binutils-x86-64-linux-gnu and binutils-aarch64-linux-gnu).
set -eu
cd "$(dirname "$0")"
out="${1:-.}"
assemble() { # assemble MACHINE PREFIX
	"$2-as" "$1.S" -o "$out/$1.o"
	"$2-objcopy" -O binary -j .text "$out/$1.o" "$out/$1.bin"
	rm "$out/$1.o"
}
assemble amd64 x86_64-linux-gnu
assemble arm64 aarch64-linux-gnu
