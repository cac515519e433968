"""A service that counts: each line that comes in is answered by the next number and the name of the host.

    counter.py ADDRESS PORT

The count is in its memory and nowhere else. It ends by SIGTERM.
"""
import os
import selectors
import socket
import sys

address, port = sys.argv[1], int(sys.argv[2])
selector = selectors.DefaultSelector()
count = 0


def accept(listener):
    connection, _ = listener.accept()
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, answer)


def answer(connection):
    global count
    asked = connection.recv(4096)
    if not asked:
        selector.unregister(connection)
        connection.close()
        return
    for _ in range(asked.count(b"\n")):
        count += 1
        connection.send(f"{count} {os.uname().nodename}\n".encode())


listener = socket.create_server((address, port), backlog=64)
listener.setblocking(False)
selector.register(listener, selectors.EVENT_READ, accept)
while True:
    for key, _ in selector.select():
        key.data(key.fileobj)
