/**
 * Runs inside a throw-away network namespace, `unshare -n node native-network-probe.mjs`, with the two ends of a veth pair
 * in it. Prints what it saw as JSON; native-network.test.ts judges.
 */
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';

const addon = createRequire(import.meta.url)('../../build/Release/phaul.node');

const V4 = [10, 99, 0, 5];
const V6 = [...Buffer.from('fd000000000000000000000000000005', 'hex')];
const STRANGER = [10, 99, 0, 6];
const UDP = 17;

const sh = (command) => execFileSync('sh', ['-ec', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

function hardware(name) {
  const [link] = JSON.parse(sh(`ip -j link show ${name}`));
  return { index: link.ifindex, mac: Buffer.from(link.address.replaceAll(':', ''), 'hex') };
}

function ipv4(to, payload, from = [10, 99, 0, 1]) {
  const header = Buffer.from([0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0, ...from, ...to]);
  header.writeUInt16BE(20 + payload.length, 2);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += header.readUInt16BE(at);
  header.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 10);
  return Buffer.concat([header, payload]);
}

function ipv6(to, payload) {
  const header = Buffer.from([0x60, 0, 0, 0, 0, 0, UDP, 64, ...Buffer.alloc(16, 0xfd), ...to]);
  header.writeUInt16BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

/** Without a checksum, which IPv4 allows. */
function udp(port, text) {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(4000, 0);
  header.writeUInt16BE(port, 2);
  header.writeUInt16BE(8 + text.length, 4);
  return Buffer.concat([header, Buffer.from(text)]);
}

function frame(from, to, packet) {
  const type = packet[0] >> 4 === 6 ? [0x86, 0xdd] : [0x08, 0x00];
  const bytes = Buffer.concat([to, from, Buffer.from(type), packet]);
  return bytes.length < 60 ? Buffer.concat([bytes, Buffer.alloc(60 - bytes.length, 0xee)]) : bytes;
}

const hexOf = (packets) => packets.map((packet) => packet.toString('hex'));
const failureOf = (action) => {
  try {
    action();
    return null;
  } catch (error) {
    return `${error.code} ${error.syscall}`;
  }
};

/** What is sent on one end of a veth pair is received on the other while this function runs, or very soon after. */
async function catchPackets() {
  sh('ip link add left type veth peer name right; ip link set left mtu 65535; ip link set right mtu 65535');
  sh('sysctl -qw net.ipv6.conf.left.disable_ipv6=1 net.ipv6.conf.right.disable_ipv6=1');
  sh('ip link set left up; ip link set right up; ip link set lo up');
  const [left, right] = [hardware('left'), hardware('right')];
  const send = (packet, to = right.mac) => addon.sendFrame(left.index, frame(left.mac, to, packet));
  const small = [ipv4(V4, Buffer.from('v4')), ipv6(V6, Buffer.from('v6'))];
  const great = [ipv4(V4, Buffer.alloc(65000, 4)), ipv6(V6, Buffer.alloc(65000, 6))];

  const catcher = addon.packetCatcher(right.index, 8 << 20);
  for (const packet of small) send(packet);
  await delay(30);
  const shut = catcher.drain();

  catcher.open([Uint8Array.from(V4), Uint8Array.from(V6)]);
  for (const packet of [...small, ...great]) send(packet);
  send(ipv4(STRANGER, Buffer.from('other address')));
  send(ipv6([...V6.slice(0, 15), 9], Buffer.from('other in the last word')));
  send(ipv4(V4, Buffer.from('other host')), Buffer.from('020000000001', 'hex'));
  addon.sendFrame(right.index, frame(right.mac, left.mac, ipv4(V4, Buffer.from('outgoing'))));
  await delay(30);
  catcher.shut();
  send(small[0]);
  await delay(30);
  const open = catcher.drain();
  const empty = catcher.drain();

  const tight = addon.packetCatcher(right.index, 4096);
  tight.open([Uint8Array.from(V4)]);
  for (let i = 0; i < 100; i += 1) send(small[0]);
  await delay(30);
  const flood = tight.drain();

  const many = Array.from({ length: 600 }, (_, i) => Uint8Array.from([10, 98, i >> 8, i & 255]));
  catcher.open([...many, Uint8Array.from(V4), Uint8Array.from(V6)]);
  for (const packet of small) send(packet);
  await delay(30);
  const long = catcher.drain();
  catcher.close();
  catcher.close();
  return {
    shut: hexOf(shut.packets),
    open: { packets: hexOf(open.packets), lost: open.lost },
    empty: hexOf(empty.packets),
    flood: { kept: flood.packets.length, lost: flood.lost },
    long: hexOf(long.packets),
    expected: { small: hexOf(small), great: hexOf(great) },
    failures: {
      closed: failureOf(() => catcher.drain()),
      length: failureOf(() => tight.open([Uint8Array.of(1)])),
      noInterface: failureOf(() => addon.packetCatcher(9999, 4096)),
      noInterfaceFrame: failureOf(() => addon.sendFrame(9999, Buffer.alloc(60))),
    },
  };
}

function changeSets() {
  sh(`nft -f - <<'RULES'
table inet phaul-test {
  set fenced4 { type ipv4_addr; }
  set fenced6 { type ipv6_addr; }
}
table arp phaul-test {
  set fenced4 { type ipv4_addr; }
}
RULES`);
  const list = (family, set) => {
    const found = JSON.parse(sh(`nft -j list set ${family} phaul-test ${set}`));
    return found.nftables.flatMap((entry) => entry.set?.elem ?? []);
  };
  const lists = () => [list('inet', 'fenced4'), list('inet', 'fenced6'), list('arp', 'fenced4')];
  const [v4, v6] = [Uint8Array.from(V4), Uint8Array.from(V6)];
  const change = (add) => {
    addon.nftElement(add, 'inet', 'phaul-test', 'fenced4', v4);
    addon.nftElement(add, 'inet', 'phaul-test', 'fenced6', v6);
    addon.nftElement(add, 'arp', 'phaul-test', 'fenced4', v4);
  };
  change(true);
  change(true);
  const added = lists();
  const start = process.hrtime.bigint();
  for (let i = 0; i < 100; i += 1) addon.nftElement(true, 'inet', 'phaul-test', 'fenced4', v4);
  const microseconds = Number(process.hrtime.bigint() - start) / 100_000;
  change(false);
  return {
    added,
    deleted: lists(),
    microseconds,
    failures: {
      again: failureOf(() => addon.nftElement(false, 'inet', 'phaul-test', 'fenced4', v4)),
      noTable: failureOf(() => addon.nftElement(true, 'inet', 'no-such', 'fenced4', v4)),
      wrongLength: failureOf(() => addon.nftElement(true, 'inet', 'phaul-test', 'fenced4', v6)),
      tooLong: failureOf(() => addon.nftElement(true, 'inet', 'phaul-test', 'fenced4', new Uint8Array(65))),
    },
  };
}

async function deliverByTun() {
  const tun = addon.openTun('phaultest%d');
  sh(`ip addr add 10.97.0.1/24 dev ${tun.name}`);
  const listener = createSocket('udp4').bind(5005, '10.97.0.1');
  await once(listener, 'listening');
  const message = once(listener, 'message', { signal: AbortSignal.timeout(5000) });
  writeSync(tun.fd, ipv4([10, 97, 0, 1], udp(5005, 'through the tunnel'), [10, 97, 0, 2]));
  const [data, sender] = await message;
  listener.close();
  return {
    name: tun.name,
    text: data.toString(),
    from: sender.address,
    failure: failureOf(() => addon.openTun('much-too-long-a-name')),
  };
}

const seen = { catcher: await catchPackets(), sets: changeSets(), tun: await deliverByTun() };
process.stdout.write(JSON.stringify(seen));
