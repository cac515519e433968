/** Why a TLS connection does not come about: gRPC keeps that to itself, so one connection is made to find out. */
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { errnoOf, messageOf, PhaulError } from '../../failure/phaul-error.js';
import { checkHostIdentity, type TlsIdentity } from './tls-identity.js';

const patienceMs = 5000;
/** With TLS 1.3 a client learns after its own handshake that the server has refused its certificate. ms. */
const verdictMs = 1000;

/** The failure behind `otherwise` (a `host-unreachable`), as exact as the connection tells it. */
export async function diagnoseTls(
  to: { host: string; port: number },
  identity: TlsIdentity,
  otherwise: PhaulError,
): Promise<PhaulError> {
  const thrown = await connectionError(to, identity);
  if (thrown === null) return otherwise;
  const code = errnoOf(thrown) ?? '';
  const name = `${to.host}:${to.port}`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return refused(
      `${name} has a certificate for another name: ${messageOf(thrown)}`,
      `make its certificate with this name: \`phaul certs DIR NAME,${to.host}\``,
      thrown,
    );
  }
  if (/^ERR_SSL_.*ALERT/.test(code) || code === 'ECONNRESET') {
    return refused(
      `${name} does not accept the certificate of this host (${code})`,
      'use certificates of the same CA on both hosts (`phaul certs`)',
      thrown,
    );
  }
  if (
    /CERT|SIGNATURE|ISSUER|SIGNED/.test(code) ||
    thrown instanceof PhaulError ||
    /certificate/.test(messageOf(thrown))
  ) {
    return refused(
      `the certificate of ${name} is not accepted: ${messageOf(thrown)}`,
      'use certificates of the same CA on both hosts (`phaul certs`)',
      thrown,
    );
  }
  return new PhaulError({
    code: 'host-unreachable',
    what: `${name} cannot be reached: ${messageOf(thrown)}`,
    remedy: `check that the agent runs there and listens on port ${to.port}, and that no firewall is between`,
    cause: thrown,
  });
}

function connectionError(to: { host: string; port: number }, identity: TlsIdentity): Promise<unknown> {
  return new Promise((resolve) => {
    const socket = connect({
      ...to,
      secureContext: identity.context,
      checkServerIdentity: checkHostIdentity,
      ...(isIP(to.host) === 0 ? { servername: to.host } : {}),
    });
    const end = (verdict: unknown): void => {
      clearTimeout(patience);
      socket.destroy();
      resolve(verdict);
    };
    const patience = setTimeout(() => end(new Error('no answer')), patienceMs);
    socket.on('error', end);
    // Hanging up right after the handshake is how a server says that it does not like the certificate, alert or not.
    socket.on('close', () => end(Object.assign(new Error('closed after the handshake'), { code: 'ECONNRESET' })));
    socket.resume();
    socket.once('secureConnect', () => setTimeout(() => end(null), verdictMs));
  });
}

function refused(what: string, remedy: string, cause: unknown): PhaulError {
  return new PhaulError({ code: 'certificate-refused', what, remedy, cause });
}
