/** Who is at the other end of a connection, told by the connection itself and never by what the caller says (dangers.md 16). */
import type { PeerCertificate } from 'node:tls';
import { PhaulError } from '../../failure/phaul-error.js';

export type Caller =
  /** The socket in the 0700 run folder: root of this host, or what it relays (`phaul agent --stdio`). */
  | { readonly kind: 'local' }
  /** A host certificate of our CA. */
  | { readonly kind: 'host'; readonly name: string }
  /** An operator certificate of our CA. */
  | { readonly kind: 'operator'; readonly name: string };

/** Names of hosts and operators: what fits a DNS label sequence, so that it can stand in a URI, a log line or a path. */
export const namePattern = /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/;

/** One word for a caller: `local`, `host:NAME` or `operator:NAME`. */
export function callerKey(caller: Caller): string {
  return caller.kind === 'local' ? 'local' : `${caller.kind}:${caller.name}`;
}

/**
 * Reads the marker `URI:phaul://host/NAME` or `URI:phaul://operator/NAME` from the subject alternative names of a
 * certificate that TLS has already verified. Exactly one marker must be there. Throws `certificate-without-role`.
 */
export function callerOf(certificate: PeerCertificate): Extract<Caller, { name: string }> {
  // Node writes the names as `DNS:a, IP Address:1.2.3.4, URI:phaul://host/a`; names that could break this list come quoted and do not match.
  const marks = (certificate.subjectaltname ?? '')
    .split(', ')
    .map((name) => /^URI:phaul:\/\/(host|operator)\/(.+)$/.exec(name))
    .filter((match) => match !== null);
  const [, kind, name] = marks[0] ?? [];
  if (marks.length !== 1 || name === undefined || !namePattern.test(name) || (kind !== 'host' && kind !== 'operator')) {
    throw new PhaulError({
      code: 'certificate-without-role',
      what: 'the certificate does not say whether it belongs to a host or to an operator',
      remedy: 'make the certificates with `phaul certs`',
    });
  }
  return { kind, name };
}
