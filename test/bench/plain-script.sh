#!/bin/sh
# The peer of `bench:migrate`: what an operator would write with the criu command line. Dump to tmpfs, copy, restore, announce.
# Runs beside both hosts: $1 $2 are the pids of their first processes, $3 the pid to move, $4 the address, $5 criu, $6 a folder.
set -eu
exec >&2
source=$1 destination=$2 pid=$3 address=$4 criu=$5 folder=$6
on() { host=$1; shift; nsenter -t "$host" -m -n -p -u -i -- "$@"; }
on "$source" mkdir -p "$folder"
on "$destination" mkdir -p "$folder"
on "$source" "$criu" dump -t "$pid" -D "$folder" --tcp-established --network-lock nftables -v1 -o -
on "$source" tar -C "$folder" -cf - . | on "$destination" tar -C "$folder" -xf -
on "$source" ip addr del "$address/32" dev eth0
on "$destination" ip addr add "$address/32" dev eth0
on "$destination" "$criu" restore -d -D "$folder" --tcp-established --network-lock nftables -v1 -o -
# A gratuitous ARP: the neighbour entry of every host that knew the address.
on "$destination" python3 -c '
import socket, sys, fcntl, struct
address = socket.inet_aton(sys.argv[1]); mac = bytes.fromhex(open("/sys/class/net/eth0/address").read().strip().replace(":", ""))
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); frames.bind(("eth0", 0))
for operation in (1, 2):
    frames.send(b"\xff" * 6 + mac + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, operation) + mac + address + b"\xff" * 6 + address)
' "$address"
on "$source" nft list tables | sed -n 's/^table inet \(CRIU-.*\)/\1/p' | while read -r table; do on "$source" nft delete table inet "$table"; done
on "$source" rm -rf "$folder"
on "$destination" rm -rf "$folder"
