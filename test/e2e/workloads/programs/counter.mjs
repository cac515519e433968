// A Node HTTP server that counts the requests of each connection; beside it a timer and an open file.
import { openSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

const [address, port, folder] = process.argv.slice(2);
const log = openSync(join(folder, 'counter.log'), 'a');
const counts = new WeakMap();
let ticks = 0;
setInterval(() => {
  ticks += 1;
}, 10);

const server = createServer({ keepAliveTimeout: 600_000 }, (request, response) => {
  const count = (counts.get(request.socket) ?? 0) + 1;
  counts.set(request.socket, count);
  const body = `${request.socket.remotePort} ${count} ${ticks}\n`;
  response.writeHead(200, { 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
});
server.listen(Number(port), address, () => writeSync(log, `listening on ${port}\n`));
