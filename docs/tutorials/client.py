"""A client of counter.py that keeps one connection and asks every 10 ms, until SIGTERM. Then it says what it has seen.

    client.py ADDRESS PORT

Alone at its service it must get the numbers 1, 2, 3, ... without a gap; anything else, or a broken connection, is an error.
"""
import signal
import socket
import sys
import time

going = True


def stop(_signal, _frame):
    global going
    going = False


signal.signal(signal.SIGTERM, stop)
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.settimeout(120)
own_port = connection.getsockname()[1]
answers = connection.makefile("r")
expected, host, since = 1, None, 0
longest, last = 0.0, time.monotonic()
while going:
    connection.sendall(b"next\n")
    number, name = answers.readline().split()
    now = time.monotonic()
    longest, last = max(longest, now - last), now
    if int(number) != expected:
        sys.exit(f"asked for {expected}, was given {number}")
    if name != host:
        if host is not None:
            print(f"{host}: answers {since} to {expected - 1}", flush=True)
        host, since = name, expected
    expected += 1
    time.sleep(0.01)
print(f"{host}: answers {since} to {expected - 1}")
print(f"one connection, from port {own_port}; every number came once; longest wait {longest * 1000:.0f} ms")
