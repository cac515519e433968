import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { judgeHostKey, knownKeyTypes, knownName, parseKnownHosts } from '../../src/agent/control/known-hosts.js';

const key = Buffer.from('key of b');
const other = Buffer.from('another key');
const line = (names: string, of = key, type = 'ssh-ed25519'): string =>
  `${names} ${type} ${of.toString('base64')} a comment`;

function hashed(name: string): string {
  const salt = Buffer.from('salt of twenty bytes');
  return `|1|${salt.toString('base64')}|${createHmac('sha1', salt).update(name).digest('base64')}`;
}

function judge(text: string, host: string, port = 22, shown = key) {
  return judgeHostKey(parseKnownHosts(text), knownName(host, port), shown);
}

describe('known_hosts', () => {
  it('knows plain, listed, wildcard and hashed names, with their port', () => {
    expect(judge(line('b'), 'b')).toBe('known');
    expect(judge(line('a,b,10.0.0.2'), 'B')).toBe('known');
    expect(judge(line('*.example'), 'b.example')).toBe('known');
    expect(judge(line(hashed('b')), 'b')).toBe('known');
    expect(judge(line('[b]:2222'), 'b', 2222)).toBe('known');
    expect(judge(line(hashed('[b]:2222')), 'b', 2222)).toBe('known');
    expect(judge(`# no\n\n${line('x')}\nbroken\n${line('b')}\n`, 'b')).toBe('known');
  });

  it('does not know what is not there', () => {
    expect(judge(line('b'), 'b', 2222)).toBe('unknown');
    expect(judge(line('b.example'), 'bxexample')).toBe('unknown');
    expect(judge(line('*.example,!b.example'), 'b.example')).toBe('unknown');
    expect(judge(line(`@cert-authority *`), 'b')).toBe('unknown');
    expect(judge(line(hashed('b')), 'c')).toBe('unknown');
    expect(judge('|1|x|y ssh-ed25519 AAAA', 'b')).toBe('unknown');
  });

  it('tells another key from an unknown host, and a revoked key from both', () => {
    expect(judge(line('b'), 'b', 22, other)).toBe('mismatch');
    expect(judge(`${line('b', other)}\n${line('b')}`, 'b')).toBe('known');
    expect(judge(`${line('b')}\n@revoked ${line('*')}`, 'b')).toBe('revoked');
  });

  it('names the key types to ask for', () => {
    const hosts = parseKnownHosts(
      `${line('b', key, 'ssh-rsa')}\n${line('b', other, 'ssh-ed25519')}\n${line('c', key, 'x')}`,
    );
    expect(knownKeyTypes(hosts, 'b')).toEqual(['ssh-rsa', 'ssh-ed25519']);
  });
});
