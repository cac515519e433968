#!/bin/bash
# A live TCP service there and back. Run by `node dist/test/tutorials/run.js live-tcp-there-and-back`.
. "$(dirname "$0")/stage.sh"

say 'The service has an address of its own, which moves with it'
on a 'ip addr add 10.77.0.200/32 dev eth0'
on a 'setsid -f python3 /srv/counter.py 10.77.0.200 7000 </dev/null >/dev/null 2>&1'
until_so a 'ss -Hltn sport = :7000 | grep -q .'
pid=$(quietly a 'pgrep -x python3')

say 'A client keeps one connection and asks every 10 ms'
on client 'setsid -f python3 /srv/client.py 10.77.0.200 7000 </dev/null >/srv/seen 2>&1'
client=$(quietly client 'pgrep -x python3')
sleep 1

say 'There'
on a "phaul migrate $pid b --move-address 10.77.0.200 --id there"
on b 'ip -4 -br addr show dev eth0'
sleep 1

say 'And back'
on b "phaul migrate $pid a --move-address 10.77.0.200 --id back"
on a 'ip -4 -br addr show dev eth0'
sleep 1

say 'What the client has seen'
quietly client "kill $client; while kill -0 $client 2>/dev/null; do sleep 0.05; done"
on client 'cat /srv/seen'
quietly client 'grep -q "every number came once" /srv/seen' || fail 'the client was not served well'

say 'Nothing is left on either host'
on a 'phaul leftovers'
on b 'phaul leftovers'
