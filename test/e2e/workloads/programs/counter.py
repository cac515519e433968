"""An asyncio HTTP server that counts the requests of each connection; beside it four threads and an open log."""

import asyncio
import os
import sys
import threading
import time

address, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
log = open(os.path.join(folder, "counter.log"), "a", buffering=1)
ticks = [0] * 4


def tick(number: int) -> None:
    while True:
        time.sleep(0.01)
        ticks[number] += 1


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer_port = writer.get_extra_info("peername")[1]
    count = 0
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            count += 1
            body = f"{peer_port} {count} {min(ticks)}\n".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    for number in range(4):
        threading.Thread(target=tick, args=(number,), daemon=True).start()
    server = await asyncio.start_server(serve, address, port)
    log.write(f"listening on {port}\n")
    async with server:
        await server.serve_forever()


asyncio.run(main())
