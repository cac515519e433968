/** OpenSSH's known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): plain and hashed names, patterns, ports, revoked keys. */
import { createHmac, timingSafeEqual } from 'node:crypto';

export interface KnownHost {
  readonly marker: 'revoked' | 'cert-authority' | null;
  readonly names: readonly string[];
  readonly keyType: string;
  readonly key: Buffer;
}

export type HostKeyVerdict = 'known' | 'unknown' | 'mismatch' | 'revoked';

/** Lines that are none of known_hosts' are skipped, as ssh does. */
export function parseKnownHosts(text: string): KnownHost[] {
  const hosts: KnownHost[] = [];
  for (const line of text.split('\n')) {
    const fields = line.trim().split(/[ \t]+/);
    if (fields[0] === '' || fields[0]?.startsWith('#')) continue;
    const marker = fields[0]?.startsWith('@') ? fields.shift() : undefined;
    const [names, keyType, key] = fields;
    if (names === undefined || keyType === undefined || key === undefined) continue;
    if (marker !== undefined && marker !== '@revoked' && marker !== '@cert-authority') continue;
    hosts.push({
      marker: marker === undefined ? null : marker === '@revoked' ? 'revoked' : 'cert-authority',
      names: names.split(','),
      keyType,
      key: Buffer.from(key, 'base64'),
    });
  }
  return hosts;
}

/** How a host and port are written in the file: the port only when it is not 22. */
export function knownName(host: string, port: number): string {
  const name = host.toLowerCase();
  return port === 22 ? name : `[${name}]:${port}`;
}

/** Key types that the file knows of this host; a connection asks for these, so that a known key is not missed for another. */
export function knownKeyTypes(hosts: readonly KnownHost[], name: string): string[] {
  const types = hosts.filter((host) => host.marker === null && isNamed(host.names, name)).map((host) => host.keyType);
  return [...new Set(types)];
}

/** Compares the key that a host shows. Certificates (`@cert-authority`) are not judged: their hosts are `unknown`. */
export function judgeHostKey(hosts: readonly KnownHost[], name: string, key: Buffer): HostKeyVerdict {
  const named = hosts.filter((host) => isNamed(host.names, name));
  if (named.some((host) => host.marker === 'revoked' && host.key.equals(key))) return 'revoked';
  const plain = named.filter((host) => host.marker === null);
  if (plain.some((host) => host.key.equals(key))) return 'known';
  return plain.length === 0 ? 'unknown' : 'mismatch';
}

function isNamed(names: readonly string[], name: string): boolean {
  let found = false;
  for (const pattern of names) {
    if (pattern.startsWith('|1|')) {
      found ||= isHashOf(pattern, name);
    } else if (pattern.startsWith('!')) {
      if (matches(pattern.slice(1), name)) return false;
    } else {
      found ||= matches(pattern, name);
    }
  }
  return found;
}

/** `|1|salt|hash`: HMAC-SHA1 of the name with the salt as key, both base64 (hostfile.c of OpenSSH, host_hash). */
function isHashOf(pattern: string, name: string): boolean {
  const [, , salt, hash] = pattern.split('|');
  if (salt === undefined || hash === undefined) return false;
  const expected = Buffer.from(hash, 'base64');
  const actual = createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest();
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

function matches(pattern: string, name: string): boolean {
  const escaped = pattern
    .toLowerCase()
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${escaped}$`).test(name);
}
