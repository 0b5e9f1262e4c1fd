#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# build.sh DIR: a private, static libfuse in DIR/prefix, newer than the packaged one and with FUSE over
# io_uring, from Debian's source package. Needs Debian, its mirror, and root or sudo for what is missing.
#
# The source is fetched by apt with a list and a state of its own, below DIR; apt checks its signatures
# against debian-archive-keyring, and the machine's own sources stay as they are. Does nothing when
# DIR/prefix is there and as new as this directory. When it cannot be had, DIR/why says why, and only
# removing DIR makes another try. Exit status: 0 it is there, 1 it is not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: build.sh DIR}
mirror=${EMDB_DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
needed="meson ninja-build gcc pkg-config dpkg-dev patch ca-certificates debian-archive-keyring liburing-dev libnuma-dev"

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
version=$(cat "$here/build.sh" "$here"/patches/*.patch | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/stamp" 2>/dev/null)" = "$version" ] && [ -f "$dir/prefix/lib/libfuse3.a" ]; then
	exit 0
fi
if [ "$(cat "$dir/tried" 2>/dev/null)" = "$version" ]; then
	exit 1
fi
echo "$version" >"$dir/tried"
log=$dir/log
: >"$log"

give_up() {
	echo "$*" >"$dir/why"
	exit 1
}

have() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_missing() {
	local p missing= sudo=
	for p in $needed; do
		have "$p" || missing="$missing $p"
	done
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || sudo=sudo
	[ -z "$sudo" ] || command -v sudo >/dev/null || give_up "missing packages:$missing"
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get -q -y install --no-install-recommends $missing >>"$log" 2>&1 ||
		{ $sudo apt-get -q update && $sudo apt-get -q -y install --no-install-recommends $missing; } >>"$log" 2>&1 ||
		give_up "packages cannot be installed:$missing"
}

# apt with nothing of the machine's but the keyring.
fetch() {
	local apt=$dir/apt
	rm -rf "$apt" "$dir/source"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$dir/source"
	: >"$apt/status"
	echo "deb-src [signed-by=$keyring] $mirror sid main" >"$apt/sources.list"
	cat >"$apt/apt.conf" <<-END
		Dir::State "$apt";
		Dir::State::Lists "$apt/lists";
		Dir::State::status "$apt/status";
		Dir::Cache "$apt/cache";
		Dir::Etc::SourceList "$apt/sources.list";
		Dir::Etc::SourceParts "-";
		APT::Sandbox::User "root";
		APT::Get::AllowUnauthenticated "false";
		Acquire::AllowInsecureRepositories "false";
		Acquire::Languages "none";
		Acquire::Retries "1";
		Acquire::http::Timeout "20";
	END
	APT_CONFIG=$apt/apt.conf apt-get -q -o APT::Update::Error-Mode=any update >>"$log" 2>&1 ||
		give_up "Debian's list of source packages cannot be fetched"
	# The .dsc is signed by its maintainer; what counts here is apt's chain of hashes from the signed list.
	(cd "$dir/source" && APT_CONFIG=$apt/apt.conf apt-get -q source --download-only fuse3 >>"$log" 2>&1) ||
		give_up "Debian's source package fuse3 cannot be fetched"
	(cd "$dir/source" && dpkg-source --no-check -x fuse3_*.dsc libfuse >>"$log" 2>&1) ||
		give_up "Debian's source package fuse3 cannot be unpacked"
}

build() {
	local p
	for p in "$here"/patches/*.patch; do
		patch -d "$dir/source/libfuse" -p1 --fuzz=0 --no-backup-if-mismatch <"$p" >>"$log" 2>&1 ||
			give_up "$(basename "$p") does not apply to $(cd "$dir/source" && ls fuse3_*.dsc)"
	done
	rm -rf "$dir/prefix"
	{
		meson setup "$dir/source/build" "$dir/source/libfuse" --prefix="$dir/prefix" --libdir=lib \
			--buildtype=debugoptimized -Ddefault_library=static -Dexamples=false -Dtests=false \
			-Dutils=false -Duseroot=false -Denable-io-uring=true -Dwarning_level=1 &&
			grep -q 'define HAVE_URING' "$dir/source/build/fuse_config.h" &&
			ninja -C "$dir/source/build" -j2 install
	} >>"$log" 2>&1 </dev/null || give_up "building it failed, see $log"
}

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || give_up "this is not a Debian system"
echo "building libfuse with io_uring, once, in $dir"
install_missing
fetch
build
rm -rf "$dir/apt" "$dir/source" "$dir/why"
echo "$version" >"$dir/stamp"
