# Set-up of phaul on a Debian machine, sourced by ../phaul with $root set. Every step does nothing when it is done already,
# says one line when it works, and one line with the remedy when it cannot. Nothing outside of these is touched:
#   apt packages, /opt/phaul-node, /opt/phaul-criu (each only if the system's own does not serve), and $root.

node_prefix=${PHAUL_NODE_PREFIX:-/opt/phaul-node}
engine_prefix=${PHAUL_CRIU_PREFIX:-/opt/phaul-criu}
notes=$root/.phaul
log=$notes/setup.log

say() { printf 'phaul: %s\n' "$1" >&2; }

# fail WHAT REMEDY
fail() {
  printf 'phaul: %s; %s\n' "$1" "$2" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "$1 needs root (namespaces, CRIU)" "run it as root: sudo $root/phaul $1"
}

set_up() {
  need_kernel
  mkdir -p "$notes" 2>/dev/null || true
  [ -w "$notes" ] || fail "$notes cannot be written" "run it as the owner of the folder, or as root"
  # Two runs side by side set up one after the other.
  exec 9>"$notes/lock"
  flock 9
  need_packages
  need_hosts_file
  need_node
  need_modules
  need_build
  need_engine
  exec 9>&-
}

need_kernel() {
  [ "$(uname -s)" = Linux ] || fail "this is $(uname -s)" "phaul moves Linux processes: run it on Linux"
  release=$(uname -r)
  major=${release%%.*}
  minor=${release#*.}
  minor=${minor%%[!0-9]*}
  if [ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -lt 14 ]; }; then
    fail "kernel $release is too old" "phaul needs Linux 5.14 or newer (cgroup.kill, pidfds)"
  fi
}

has() { command -v "$1" >/dev/null 2>&1; }

need_packages() {
  wanted=
  # tool:package
  for pair in g++:build-essential make:build-essential python3:python3 openssl:openssl ip:iproute2 nft:nftables ps:procps \
    nsenter:util-linux setpriv:util-linux flock:util-linux; do
    has "${pair%%:*}" || wanted="$wanted ${pair#*:}"
  done
  [ -e /usr/include/xxhash.h ] || wanted="$wanted libxxhash-dev"
  # Headers of Node come with Debian's own node; the private copy has none.
  if ! system_node_serves && { [ ! -e /usr/include/node/node_api.h ] || ! has npm; }; then wanted="$wanted nodejs npm"; fi
  wanted=$(printf '%s\n' $wanted | sort -u | tr '\n' ' ')
  [ -n "${wanted% }" ] || return 0
  has apt-get || fail "missing: ${wanted% } (Debian's names)" "install them with this system's package manager"
  need_root_for "install ${wanted% }"
  say "installing Debian packages: ${wanted% }"
  logged apt-get update || fail_with_log "apt-get update failed" "check the network and /etc/apt/sources.list*"
  # shellcheck disable=SC2086 # a list
  DEBIAN_FRONTEND=noninteractive logged apt-get install -y --no-install-recommends $wanted ||
    fail_with_log "apt-get could not install ${wanted% }" "install them by hand, then run this again"
}

# A bare tree has none, and the hosts of a demo lay their own over it.
need_hosts_file() {
  [ ! -e /etc/hosts ] || return 0
  need_root_for "write /etc/hosts"
  say "writing /etc/hosts, which is missing: localhost"
  printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts
}

need_root_for() {
  [ "$(id -u)" = 0 ] || fail "root is needed to $1" "run it as root once: sudo $root/phaul setup"
}

# True if the node and npm on the PATH are new enough: vite needs Node 20.19, and npm 9 cannot install vitest 4.
system_node_serves() {
  # Asked once: npm takes a third of a second to say its version.
  if [ -z "${system_node-}" ]; then
    system_node=no
    if has node && has npm && node_is_new "$(command -v node)"; then
      npm_version=$(npm --version 2>/dev/null || echo 0)
      [ "${npm_version%%.*}" -lt 10 ] || system_node=yes
    fi
  fi
  [ "$system_node" = yes ]
}

node_is_new() {
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  minor=${version#*.}
  [ "${version%%.*}" -gt 20 ] || { [ "${version%%.*}" -eq 20 ] && [ "${minor%%.*}" -ge 19 ]; }
}

# The node that was chosen is written down, so that an ordinary command starts without looking for it.
need_node() {
  if [ -e "$notes/node" ] && [ -x "$(cat "$notes/node")" ]; then
    use_node
    return 0
  fi
  if system_node_serves; then
    command -v node >"$notes/node"
  else
    if ! node_is_new "$node_prefix/node_modules/.bin/node"; then
      need_root_for "install Node.js into $node_prefix"
      say "installing Node.js 22 into $node_prefix (the system's node or npm is too old)"
      # A npm package named node brings the binary, so the registry is the only download.
      logged npm install --prefix "$node_prefix" node@22 npm@11 ||
        fail_with_log "Node.js could not be installed" "install Node.js 20.19 or newer with npm 10 or newer, then run this again"
    fi
    readlink -f "$node_prefix/node_modules/.bin/node" >"$notes/node"
  fi
  use_node
}

use_node() {
  node=$(cat "$notes/node")
  case $node in
    "$node_prefix"/*)
      PATH=$node_prefix/node_modules/.bin:$PATH
      export PATH
      ;;
  esac
}

need_modules() {
  if [ -e "$root/node_modules/.package-lock.json" ] && [ ! "$root/package-lock.json" -nt "$root/node_modules/.package-lock.json" ]; then
    return 0
  fi
  say "installing npm packages"
  (cd "$root" && node_headers && JOBS=$(nproc) logged npm ci) ||
    fail_with_log "npm ci failed" "check the network and the npm registry, then run this again"
}

# node-gyp would download headers; those of any Node from 18 on serve an addon for Node-API.
node_headers() {
  for folder in "$(dirname "$(dirname "$(readlink -f "$node")")")" /usr; do
    if [ -e "$folder/include/node/node_api.h" ]; then
      export npm_config_nodedir="$folder"
      return 0
    fi
  done
}

need_build() {
  if [ -e "$notes/built" ] && [ -e "$root/dist/src/cli/main.js" ] && [ -z "$(newer_than_build)" ]; then return 0; fi
  say "building"
  touch "$notes/building"
  (cd "$root" && node_headers && logged npm run build && logged make -s -C test/targets) ||
    fail_with_log "the build failed" "see $log"
  mv "$notes/building" "$notes/built"
  rm -f "$notes/engine"
}

# Folders count too: their time tells of files that were removed. Not src itself, in which the build makes src/gen.
newer_than_build() {
  (cd "$root" && {
    find native proto src test -mindepth 1 -path src/gen -prune -o -newer "$notes/built" -print
    find binding.gyp package.json package-lock.json tsconfig.json deploy/setup.sh -newer "$notes/built"
  } | head -n 1)
}

# What serves one kernel may not serve the next.
need_engine() {
  mark="$(uname -r) ${PHAUL_CRIU-}"
  if [ -e "$notes/engine" ] && [ "$(cat "$notes/engine")" = "$mark" ]; then return 0; fi
  if [ "$(id -u)" != 0 ]; then
    say "not root: the engine (CRIU) is not looked for"
    return 0
  fi
  if ! logged "$node" "$root/dist/src/cli/main.js" engine; then
    [ -z "${PHAUL_CRIU-}" ] || fail "the CRIU named by PHAUL_CRIU does not serve" "run $root/phaul engine to see why"
    say "installing CRIU into $engine_prefix (no installed CRIU serves this kernel)"
    logged sh "$root/src/criu/install-engine.sh" "$engine_prefix" forky ||
      fail_with_log "CRIU could not be installed" "install CRIU 4.2 or newer by hand and name it by PHAUL_CRIU"
    logged "$node" "$root/dist/src/cli/main.js" engine ||
      fail_with_log "no CRIU serves on this machine" "run $root/phaul engine to see why"
  fi
  printf '%s' "$mark" >"$notes/engine"
}

# Runs a command, its output into the log.
logged() {
  printf '\n$ %s\n' "$*" >>"$log"
  "$@" >>"$log" 2>&1 9>&-
}

fail_with_log() {
  tail -n 25 "$log" | sed 's/^/  | /' >&2
  fail "$1" "$2"
}

link_command() {
  command=/usr/local/bin/phaul
  if [ -L "$command" ] && [ "$(readlink -f "$command")" = "$root/phaul" ]; then
    say "ready: phaul is installed as $command"
  elif [ -e "$command" ] || [ -L "$command" ]; then
    say "ready; $command exists and is something else: left as it is, use $root/phaul"
  elif ln -s "$root/phaul" "$command" 2>/dev/null; then
    say "ready: phaul is installed as $command"
  else
    say "ready; $command cannot be written: use $root/phaul"
  fi
}

become_node() {
  if [ -e "$notes/node" ] && [ -x "$(cat "$notes/node")" ]; then
    use_node
  else
    node=$(command -v node) || fail "Node.js is missing" "run $root/phaul setup"
  fi
  # The pool is shared by file access and compression; libuv reads this once, at its first use.
  UV_THREADPOOL_SIZE=${UV_THREADPOOL_SIZE:-$(($(nproc) + 4))}
  export UV_THREADPOOL_SIZE
  exec "$node" "$@"
}
