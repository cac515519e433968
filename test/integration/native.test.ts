import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { errnoOf } from '../../src/failure/phaul-error.js';
import { addon, type PacketSocket, packageRoot } from '../../src/native/addon.js';

const MIB = 1 << 20;

/** Collects what one packet socket tells. */
class Ear {
  readonly packets: Buffer[] = [];
  readonly fds: number[] = [];
  readonly errors: Error[] = [];
  ends = 0;
  readonly socket: PacketSocket;
  #wake: () => void = () => {};

  constructor(fd: number) {
    this.socket = addon().packetSocket(fd, {
      packet: (data, fds) => {
        this.packets.push(data);
        this.fds.push(...fds);
        this.#wake();
      },
      end: () => {
        this.ends += 1;
        this.#wake();
      },
      error: (error) => {
        this.errors.push(error);
        this.#wake();
      },
    });
  }

  async until(condition: () => boolean): Promise<void> {
    let late = false;
    const limit = setTimeout(() => {
      late = true;
      this.#wake();
    }, 10_000);
    while (!condition()) {
      if (late) throw new Error('nothing came within 10 s');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    clearTimeout(limit);
  }
}

/** A python3 that has the far end as descriptor 3 and `s` as its socket. */
function python(far: number, program: string): ChildProcess {
  const source = `import os, socket, struct, sys\ns = socket.socket(fileno=3)\n${program}`;
  const child = spawn('python3', ['-c', source], { stdio: ['ignore', 'pipe', 'inherit', far] });
  closeSync(far);
  return child;
}

function codeOf(action: () => unknown): string | null {
  try {
    action();
  } catch (error) {
    return errnoOf(error);
  }
  return null;
}

function isOpen(fd: number): boolean {
  return codeOf(() => fstatSync(fd)) === null;
}

describe('SEQPACKET socket', () => {
  test('carries messages of 1 byte to 1 MiB whole and in order, in both directions', async () => {
    const ends = addon().socketPair('seqpacket', MIB);
    const near = new Ear(ends.near);
    const far = new Ear(ends.far);
    try {
      const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: MIB })), {
        minLength: 1,
        maxLength: 5,
      });
      await fc.assert(
        fc.asyncProperty(sizes, fc.nat(255), fc.boolean(), async (lengths, seed, outwards) => {
          const [from, to] = outwards ? [near, far] : [far, near];
          to.packets.length = 0;
          const messages = lengths.map((length, i) => Buffer.alloc(length, seed + i));
          for (const message of messages) from.socket.send(message);
          await to.until(() => to.packets.length >= messages.length);
          expect(to.packets.map((packet) => addon().xxh3(packet))).toEqual(messages.map((m) => addon().xxh3(m)));
        }),
        { numRuns: 60 },
      );
      expect([near.errors, far.errors]).toEqual([[], []]);
    } finally {
      near.socket.close();
      far.socket.close();
    }
  });

  test('gives the descriptors that come with a message, and an empty message is no end', async () => {
    const ends = addon().socketPair('seqpacket', 0);
    const ear = new Ear(ends.near);
    const child = python(
      ends.far,
      `a, b = os.pipe(); c, d = os.pipe()
os.write(b, b'first'); os.write(d, b'second')
s.send(b'')
socket.send_fds(s, [b'two of them'], [a, c])
s.recv(1)`,
    );
    try {
      await ear.until(() => ear.packets.length === 2);
      expect(ear.packets.map(String)).toEqual(['', 'two of them']);
      const read = ear.fds.map((fd) => {
        const buffer = Buffer.alloc(16);
        return buffer.toString('latin1', 0, readSync(fd, buffer));
      });
      expect(read).toEqual(['first', 'second']);
      const flags = ear.fds.map((fd) => readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'));
      for (const text of flags)
        expect(Number.parseInt(/flags:\s+(\d+)/.exec(text)?.[1] ?? '0', 8) & 0o2000000).not.toBe(0);
    } finally {
      for (const fd of ear.fds) closeSync(fd);
      ear.socket.close();
      await once(child, 'exit');
    }
  });

  test('tells the end once, after every message that was waiting', async () => {
    const ends = addon().socketPair('seqpacket', MIB);
    const child = python(ends.far, `for i in range(100): s.send(struct.pack('<I', i) * 100)`);
    await once(child, 'exit');
    const ear = new Ear(ends.near);
    await ear.until(() => ear.ends > 0);
    expect(ear.packets.map((packet) => packet.readUInt32LE(396))).toEqual([...Array(100).keys()]);
    await delay(20);
    expect([ear.ends, ear.errors]).toEqual([1, []]);
    expect(isOpen(ends.near)).toBe(false);
    expect(codeOf(() => ear.socket.send(Buffer.from('late')))).toBe('EBADF');
  });

  test('a peer that dies without having read our messages is an end, not an error, and its last words are kept', async () => {
    const ends = addon().socketPair('seqpacket', MIB);
    const ear = new Ear(ends.near);
    ear.socket.send(Buffer.from('never read'));
    const child = python(ends.far, `s.send(b'one'); s.send(b'two')`);
    await ear.until(() => ear.ends > 0);
    await once(child, 'exit');
    expect(ear.packets.map(String)).toEqual(['one', 'two']);
    expect([ear.ends, ear.errors]).toEqual([1, []]);
  });

  test('a send that would block is kept, in order, until the peer reads', async () => {
    const ends = addon().socketPair('seqpacket', 16 * 1024);
    const ear = new Ear(ends.near);
    const child = python(
      ends.far,
      `s.recv(1)
good = all(s.recv(20000) == struct.pack('<I', i) * 2000 for i in range(500))
s.send(b'in order' if good else b'mixed up')`,
    );
    try {
      ear.socket.send(Buffer.from('g'));
      for (let i = 0; i < 500; i += 1) {
        const message = Buffer.alloc(8000);
        for (let at = 0; at < message.length; at += 4) message.writeUInt32LE(i, at);
        ear.socket.send(message);
        // Reused at once: a queued message must have been copied.
        message.fill(0xff);
      }
      await ear.until(() => ear.packets.length > 0);
      expect(String(ear.packets[0])).toBe('in order');
    } finally {
      ear.socket.close();
      await once(child, 'exit');
    }
  });

  test('no callback comes after close, be it called from a callback', async () => {
    const ends = addon().socketPair('seqpacket', MIB);
    let calls = 0;
    const far = new Ear(ends.far);
    const near: PacketSocket = addon().packetSocket(ends.near, {
      packet: () => {
        calls += 1;
        near.close();
      },
      end: () => {
        calls += 1;
      },
      error: () => {
        calls += 1;
      },
    });
    for (let i = 0; i < 10; i += 1) far.socket.send(Buffer.from([i]));
    await far.until(() => far.ends > 0);
    await delay(20);
    expect(calls).toBe(1);
    near.close();
  });

  test('says what is too great, and what is no socket', () => {
    const ends = addon().socketPair('seqpacket', 4096);
    const ear = new Ear(ends.near);
    expect(codeOf(() => ear.socket.send(Buffer.alloc(MIB)))).toBe('EMSGSIZE');
    ear.socket.close();
    closeSync(ends.far);
    const file = openSync('/dev/null', 'r');
    expect(codeOf(() => addon().packetSocket(-1, { packet() {}, end() {}, error() {} }))).toBe('EBADF');
    expect(() => addon().socketPair('seqpacket', 1.5)).toThrow(TypeError);
    closeSync(file);
  });

  test('a worker that ends with open sockets and watches takes nothing down', async () => {
    const program = `
      const { Worker, isMainThread } = require('node:worker_threads');
      if (isMainThread) {
        const worker = new Worker(__filename.endsWith('[eval]') ? process.env.PROGRAM : __filename, { eval: true });
        worker.on('message', () => worker.terminate().then(() => console.log('down')));
      } else {
        const addon = require(process.env.ADDON);
        const ends = addon.socketPair('seqpacket', 0);
        addon.packetSocket(ends.near, { packet() {}, end() {}, error() {} });
        addon.exitWatch(addon.pidfdOpen(process.pid), () => {});
        require('node:worker_threads').parentPort.postMessage('open');
      }`;
    const env = { ...process.env, PROGRAM: program, ADDON: join(packageRoot, 'build', 'Release', 'phaul.node') };
    const child = spawn(process.execPath, ['-e', program], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    expect([code, signal, output.trim()]).toEqual([0, null, 'down']);
  });
});

describe('process descriptor', () => {
  test('tells an exit once, also one that has been, though the pidfd was closed meanwhile', async () => {
    const child = spawn('sleep', ['60']);
    const pidfd = addon().pidfdOpen(child.pid ?? 0);
    let exits = 0;
    const told = new Promise<void>((resolve) => {
      addon().exitWatch(pidfd, () => {
        exits += 1;
        resolve();
      });
    });
    const silent = addon().exitWatch(pidfd, () => {
      exits += 100;
    });
    silent.close();
    silent.close();
    await delay(20);
    expect(exits).toBe(0);
    addon().pidfdSignal(pidfd, 9);
    const second = addon().pidfdOpen(process.pid);
    closeSync(pidfd);
    closeSync(second);
    await told;
    await delay(20);
    expect(exits).toBe(1);
  });

  test('says ESRCH for a process that is gone', async () => {
    const child = spawn('true');
    const pidfd = addon().pidfdOpen(child.pid ?? 0);
    await once(child, 'exit');
    expect(codeOf(() => addon().pidfdSignal(pidfd, 9))).toBe('ESRCH');
    expect(codeOf(() => addon().pidfdOpen(child.pid ?? 0))).toBe('ESRCH');
    await new Promise<void>((resolve) => {
      addon().exitWatch(pidfd, resolve);
    });
    closeSync(pidfd);
  });

  test('danger 2: repair mode of another process is seen and ended through its descriptor', async (context) => {
    const ends = addon().socketPair('seqpacket', 0);
    const ear = new Ear(ends.near);
    const child = python(
      ends.far,
      `l = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(l.getsockname()); p, _ = l.accept()
try: c.setsockopt(socket.IPPROTO_TCP, 19, 1)
except PermissionError: s.send(b'EPERM'); sys.exit()
s.send(struct.pack('<III', c.fileno(), p.fileno(), 3))
s.recv(1)
c.send(b'goes on')
s.send(p.recv(100))`,
    );
    try {
      await ear.until(() => ear.packets.length > 0 || ear.ends > 0);
      const [fds] = ear.packets;
      if (fds === undefined || fds.length < 12) return context.skip('TCP_REPAIR needs CAP_NET_ADMIN');
      const pidfd = addon().pidfdOpen(child.pid ?? 0);
      const [repaired = -1, plain = -1, unix = -1] = [0, 4, 8].map((at) =>
        addon().pidfdGetfd(pidfd, fds.readUInt32LE(at)),
      );
      expect([repaired, plain, unix, pidfd].map((fd) => addon().tcpInRepair(fd))).toEqual([true, false, false, false]);
      addon().tcpLeaveRepair(repaired);
      expect(addon().tcpInRepair(repaired)).toBe(false);
      for (const fd of [repaired, plain, unix, pidfd]) closeSync(fd);
      ear.socket.send(Buffer.from('g'));
      await ear.until(() => ear.packets.length > 1);
      expect(String(ear.packets[1])).toBe('goes on');
    } finally {
      ear.socket.close();
      await once(child, 'exit');
    }
  });
});

test('danger 6: one open file holds the lock, and it is free when that is closed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'phaul-native-'));
  try {
    const path = join(folder, 'lock');
    const [first, second] = [openSync(path, 'w'), openSync(path, 'w')];
    expect([addon().flock(first), addon().flock(second), addon().flock(first)]).toEqual([true, false, true]);
    closeSync(first);
    expect(addon().flock(second)).toBe(true);
    closeSync(second);
    expect(codeOf(() => addon().flock(second))).toBe('EBADF');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('XXH3 of known inputs, and of parts as of the whole', () => {
  // The reference implementation's values for "abc".
  expect(addon().xxh3(Buffer.from('abc'))).toBe(0x78af5f94892f3950n);
  const digest = (...parts: Uint8Array[]): string => {
    const stream = addon().xxh3Stream();
    for (const part of parts) stream.update(part);
    return stream.digest();
  };
  expect(digest(Buffer.from('abc'))).toBe('06b05ab6733a618578af5f94892f3950');
  expect(digest()).toBe('99aa06d3014798d86001c324468d497f');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), fc.nat(2000), (data, cut) => {
      expect(digest(data.subarray(0, cut), data.subarray(cut))).toBe(digest(data));
    }),
  );
});
