#!/bin/sh
# Unpacks a newer CRIU of Debian's suite $2 (forky) with its libraries below $1, by apt's own verification but without
# touching the machine's packages: an apt of its own with an empty package status, download only, dpkg-deb -x.
set -eu
prefix=${1:?usage: install-engine.sh PREFIX [SUITE]}
suite=${2:-forky}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
fail() { # what, remedy
  echo "install-engine: $1: $2" >&2
  exit 1
}
case $prefix in /*) ;; *) fail "$prefix is no absolute path" "name the prefix from / on" ;; esac
# Debian's own archive, wherever this machine gets it from; a third party's has no newer CRIU.
archives() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "$@" | grep -v security | head -n 1; }
mirror=$(archives 'Origin: Debian' 'Label: Debian')
# Before the first `apt-get update` apt does not know whose archives they are.
[ -n "$mirror" ] || mirror=$(archives)
[ -n "$mirror" ] || fail "apt knows no Debian archive" "run apt-get update"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "$keyring is missing" "apt-get install debian-archive-keyring"
architecture=$(dpkg --print-architecture)
case $architecture in
  amd64) triplet=x86_64-linux-gnu ;;
  arm64) triplet=aarch64-linux-gnu ;;
  *) fail "no engine is known for $architecture" "install CRIU 4.2 or newer by hand and name it by PHAUL_CRIU" ;;
esac
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/state"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
APT::Architecture "$architecture";
APT::Architectures "$architecture";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::State::lists "$work/lists";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
APT_CONFIG="$work/apt.conf" apt-get -qq update
APT_CONFIG="$work/apt.conf" apt-get -qq -y --download-only install criu >/dev/null
rm -rf "$prefix.new"
mkdir -p "$prefix.new/bin"
for package in "$work"/archives/*.deb; do dpkg-deb -x "$package" "$prefix.new"; done
rm -rf "$prefix.new/usr/share/doc" "$prefix.new/usr/share/man" "$prefix.new/usr/share/locale"
libraries=$prefix/usr/lib/$triplet
loader=$(basename "$(ls "$prefix.new/usr/lib/$triplet"/ld-linux-*.so.*)")
# CRIU runs on its own libc through its own loader; its children (nft, ip, tar) load the system's.
cat >"$prefix.new/bin/criu" <<WRAPPER
#!/bin/sh
preload=\${PHAUL_CRIU_PRELOAD:-}
unset PHAUL_CRIU_PRELOAD
exec $libraries/$loader --argv0 criu \${preload:+--preload "\$preload"} --library-path $libraries $prefix/usr/sbin/criu "\$@"
WRAPPER
chmod 755 "$prefix.new/bin/criu"
rm -rf "$prefix.old"
# A CRIU that runs keeps its files: they are renamed, and removed under it.
[ ! -e "$prefix" ] || mv "$prefix" "$prefix.old"
mv "$prefix.new" "$prefix"
rm -rf "$prefix.old"
"$prefix/bin/criu" --version
