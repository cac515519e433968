/** The certificate of this program, read and checked once, and how it judges the other side's (dangers.md 16). */
import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { checkServerIdentity, createSecureContext, type PeerCertificate, type SecureContext } from 'node:tls';
import { errnoOf, PhaulError } from '../../failure/phaul-error.js';
import type { TlsFiles } from '../config.js';
import { type Caller, callerOf } from './caller.js';

export interface TlsIdentity {
  readonly caller: Extract<Caller, { name: string }>;
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
  /** For connections that this program opens. TLS 1.3 only. */
  readonly context: SecureContext;
}

/** Throws `tls-file-unreadable`, `key-readable-by-others`, `certificate-without-role`, `certificate-expired`. */
export function readTlsIdentity(files: TlsFiles): TlsIdentity {
  const [ca, certificate, key] = [readPem(files.ca), readPem(files.certificate), readPem(files.key)];
  if ((statSync(files.key).mode & 0o077) !== 0) {
    throw new PhaulError({
      code: 'key-readable-by-others',
      what: `the key ${files.key} can be read by others`,
      remedy: `chmod 600 ${files.key}`,
    });
  }
  const facts = new X509Certificate(certificate);
  if (Date.parse(facts.validTo) < Date.now()) {
    throw new PhaulError({
      code: 'certificate-expired',
      what: `the certificate ${files.certificate} was valid until ${facts.validTo}`,
      remedy: 'make new ones with `phaul certs`',
    });
  }
  const caller = callerOf(facts.toLegacyObject() as PeerCertificate);
  const context = createSecureContext({ ca, cert: certificate, key, minVersion: 'TLSv1.3' });
  return { caller, ca, certificate, key, context };
}

/** Node's own check of the dialled name against the certificate, and that it is a host's. Returns what is wrong. */
export function checkHostIdentity(dialled: string, certificate: PeerCertificate): Error | undefined {
  const mismatch = checkServerIdentity(dialled, certificate);
  if (mismatch !== undefined) return mismatch;
  try {
    const { kind } = callerOf(certificate);
    return kind === 'host' ? undefined : new Error('the certificate of the other side is not a host certificate');
  } catch (thrown) {
    return thrown as Error;
  }
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new PhaulError({
      code: 'tls-file-unreadable',
      what: `${path} cannot be read (${errnoOf(cause) ?? 'unknown'})`,
      remedy: 'make the certificates with `phaul certs` and name them in the configuration under tls',
      cause,
    });
  }
}
