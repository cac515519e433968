#!/bin/bash
# A migration over ssh. Run by `node dist/test/tutorials/run.js over-ssh`.
. "$(dirname "$0")/stage.sh"

say 'a has no certificate and no agent runs anywhere; b has phaul and an ssh server that lets root of a in'
on a 'setsid -f python3 /srv/counter.py 0.0.0.0 7000 </dev/null >/dev/null 2>&1'
until_so a 'ask 127.0.0.1 7000'
on a 'ask 127.0.0.1 7000'
pid=$(quietly a 'pgrep -x python3')

say 'The key of b is not known here, and nobody is asked to believe it'
refused 3 a "phaul migrate $pid root@b"

say 'An administrator compares the fingerprint, then writes the key down'
on b 'ssh-keygen -lf /srv/ssh/host_key.pub'
on a 'ssh-keyscan -t ed25519 b 2>/dev/null > ~/.ssh/known_hosts; ssh-keygen -lf ~/.ssh/known_hosts'

say 'The agents are started by the command, here and there; control and memory travel inside ssh'
on a "phaul migrate $pid root@b --id by-ssh"
on b 'ask 127.0.0.1 7000'
[ "$(quietly b 'ask 127.0.0.1 7000')" = '4 b' ] || fail 'the count is wrong'

say 'The agent of b outlives the connection'
on b 'phaul status'
on b 'phaul leftovers'
