#!/bin/bash
# What happens when the destination dies. Run by `node dist/test/tutorials/run.js destination-dies`.
. "$(dirname "$0")/stage.sh"

say 'A service on a, and a client that keeps one connection'
on a 'ip addr add 10.77.0.200/32 dev eth0'
on a 'setsid -f python3 /srv/counter.py 10.77.0.200 7000 </dev/null >/dev/null 2>&1'
until_so a 'ss -Hltn sport = :7000 | grep -q .'
pid=$(quietly a 'pgrep -x python3')
on client 'setsid -f python3 /srv/client.py 10.77.0.200 7000 </dev/null >/srv/seen 2>&1'
client=$(quietly client 'pgrep -x python3')

say 'A hook on b that takes its time while the process is frozen, so that we can pull the plug'
on b 'mkdir -p /srv/hooks && cat > /srv/hooks/slow <<END
#!/bin/sh
if [ \$PHAUL_PHASE = restore ]; then touch /run/now; sleep 9; fi
END
chmod 755 /srv/hooks/slow'

say 'The migration begins'
code="$STAGE/exit-code"
(
  status=0
  on a "phaul migrate $pid b --move-address 10.77.0.200 --hook /srv/hooks --id unlucky" || status=$?
  printf '%s' "$status" >"$code"
) &
until_so b 'test -e /run/now'

printf '\033[31m(power off: b)\033[0m\n'
stage power-off b
wait
[ "$(cat "$code")" = 1 ] || fail "exit code $(cat "$code") instead of 1"
printf '(exit code 1)\n'

say 'The process goes on where it was, and so does its client'
sleep 1
on a "ps -o pid,stat,args -p $pid"
quietly client "kill $client; while kill -0 $client 2>/dev/null; do sleep 0.05; done"
on client 'cat /srv/seen'
quietly client 'grep -q "every number came once" /srv/seen' || fail 'the client was not served well'
on a 'phaul status'
on a 'phaul leftovers'

printf '\n\033[32m(power on: b)\033[0m\n'
stage power-on b
say 'The agent of b reads its journal and undoes what was open'
on b 'phaul agent --daemon'
on b 'phaul status'
on b 'phaul leftovers'

say 'The second try succeeds'
on a "phaul migrate $pid b --move-address 10.77.0.200 --id again"
