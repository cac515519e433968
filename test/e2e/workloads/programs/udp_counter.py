"""A UDP server that counts the numbers of each peer. A number that was seen before is answered, but not counted again."""

import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
seen: dict[tuple[str, int], int] = {}
while True:
    message, peer = server.recvfrom(64)
    number = int(message)
    if number == seen.get(peer, 0) + 1:
        seen[peer] = number
    server.sendto(f"{number} {seen.get(peer, 0)}".encode(), peer)
