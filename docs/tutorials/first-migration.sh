#!/bin/bash
# First migration: certificates, two agents, one process. Run by `node dist/test/tutorials/run.js first-migration`.
. "$(dirname "$0")/stage.sh"

say 'On host a: a certificate authority, and a certificate for each host'
on a 'phaul certs /srv/ca a,10.77.0.1 b,10.77.0.2'

say 'Each host gets ca.pem, its own certificate and its own key; ca.key stays where it is'
for host in a b; do
  quietly "$host" 'mkdir -p /srv/phaul'
  for file in ca.pem "$host.pem" "$host.key"; do
    quietly a "cat /srv/ca/$file" | quietly "$host" "umask 077; cat > /srv/phaul/$file"
  done
  on "$host" 'ls /srv/phaul'
done

say 'The configuration of b: whom it listens to, and who may send process trees here'
on b 'cat > $PHAUL_CONFIG <<END
{
  "listen": "10.77.0.2:7437",
  "tls": { "ca": "/srv/phaul/ca.pem", "certificate": "/srv/phaul/b.pem", "key": "/srv/phaul/b.key" },
  "peers": [{ "name": "a" }]
}
END'
say 'a only sends, so it needs no more than its certificate'
on a 'cat > $PHAUL_CONFIG <<END
{
  "tls": { "ca": "/srv/phaul/ca.pem", "certificate": "/srv/phaul/a.pem", "key": "/srv/phaul/a.key" }
}
END'
on b 'phaul agent --daemon'
on a 'phaul agent --daemon'

say 'A program on a: it counts the questions that it is asked, in its memory and nowhere else'
on a 'setsid -f python3 /srv/counter.py 0.0.0.0 7000 </dev/null >/dev/null 2>&1'
until_so a 'ask 127.0.0.1 7000'
on a 'ask 127.0.0.1 7000'
on a 'ask 127.0.0.1 7000'
pid=$(quietly a 'pgrep -x python3')

say 'Can it move? Nothing is touched yet'
on a "phaul migrate $pid b --dry-run"

say 'Then it moves'
on a "phaul migrate $pid b --id first"

say 'It goes on counting on b, with the same pid, and is gone from a'
on b 'ask 127.0.0.1 7000'
[ "$(quietly b 'ask 127.0.0.1 7000')" = '5 b' ] || fail 'the count is wrong'
on b 'pgrep -x -a python3'
refused 1 a 'pgrep -x -a python3'

say 'What both hosts remember of it, and what is left of it: nothing'
on a 'phaul status'
on b 'phaul status'
on a 'phaul leftovers'
on b 'phaul leftovers'
