/**
 * A small certificate authority for the hosts and operators of one installation: `phaul certs`.
 *
 * Node can check X.509 certificates but not issue them; the `openssl` program does (3.0 or later: `req -x509 -CA`).
 * Host and operator certificates differ by a marker, URI:phaul://host/NAME or URI:phaul://operator/NAME, and by their
 * key usage: an operator's certificate cannot serve (dangers.md 16).
 */

import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PhaulError } from '../../failure/phaul-error.js';
import { runCommand } from '../../host/command.js';
import { namePattern } from './caller.js';

/** Hosts are renewed by hand; two years and a quarter is the longest that common checkers accept. */
const leafDays = 825;
const caDays = 3650;

export interface CertifiedHost {
  readonly name: string;
  /** Further names and addresses by which it is dialled. */
  readonly alternatives: readonly string[];
}

export interface CertificateFiles {
  readonly name: string;
  readonly certificate: string;
  readonly key: string;
}

export interface IssuedCertificates {
  readonly ca: string;
  readonly hosts: readonly CertificateFiles[];
  readonly operator: CertificateFiles | null;
}

/** `NAME[,IP or DNS name]...`. Throws `host-name-wrong`. */
export function parseCertifiedHost(text: string): CertifiedHost {
  const [name = '', ...alternatives] = text.split(',');
  const wrong = [name, ...alternatives].find(
    (part, index) => !namePattern.test(part) && (index === 0 || isIP(part) === 0),
  );
  if (wrong === undefined && isIP(name) === 0) return { name, alternatives };
  throw new PhaulError({
    code: 'host-name-wrong',
    what: `${wrong ?? name} is no host name`,
    remedy: 'write NAME, or NAME,IP,... : letters, digits, dots and dashes',
  });
}

/**
 * Makes the CA in `folder` if it is not there, and a certificate for each host and for the operator. Keys are EC P-256,
 * 0600 in a 0700 folder. Throws `certificate-exists` before anything is made; `command-failed` when openssl fails.
 */
export async function issueCertificates(
  folder: string,
  hosts: readonly CertifiedHost[],
  operator: string | null,
): Promise<IssuedCertificates> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const wanted = [...hosts.map((host) => host.name), ...(operator === null ? [] : [operatorFile(operator)])];
  for (const name of wanted) await refuseExisting(join(folder, `${name}.pem`));
  const ca = await authority(folder);
  const issued: CertificateFiles[] = [];
  for (const host of hosts) {
    const names = [host.name, ...host.alternatives].map((name) => (isIP(name) === 0 ? `DNS:${name}` : `IP:${name}`));
    issued.push(
      await issue(folder, host.name, host.name, {
        subjectAltName: [...names, `URI:phaul://host/${host.name}`].join(','),
        extendedKeyUsage: 'serverAuth,clientAuth',
      }),
    );
  }
  const forOperator =
    operator === null
      ? null
      : await issue(folder, operator, operatorFile(operator), {
          subjectAltName: `URI:phaul://operator/${operator}`,
          extendedKeyUsage: 'clientAuth',
        });
  return { ca, hosts: issued, operator: forOperator };
}

/** True when the authority in `folder` has made a certificate for this operator already. */
export function operatorIsThere(folder: string, operator: string): Promise<boolean> {
  return exists(join(folder, `${operatorFile(operator)}.pem`));
}

function operatorFile(name: string): string {
  return `operator-${name}`;
}

async function authority(folder: string): Promise<string> {
  const [certificate, key] = [join(folder, 'ca.pem'), join(folder, 'ca.key')];
  if (await exists(certificate)) return certificate;
  const extensions = { basicConstraints: 'critical,CA:TRUE,pathlen:0', keyUsage: 'critical,keyCertSign,cRLSign' };
  await openssl(
    ['-days', String(caDays)],
    'phaul CA',
    { certificate, key },
    { ...extensions, subjectKeyIdentifier: 'hash' },
  );
  return certificate;
}

async function issue(
  folder: string,
  subject: string,
  file: string,
  own: Record<string, string>,
): Promise<CertificateFiles> {
  const files = { certificate: join(folder, `${file}.pem`), key: join(folder, `${file}.key`) };
  const extensions = { basicConstraints: 'critical,CA:FALSE', keyUsage: 'critical,digitalSignature', ...own };
  const signed = ['-days', String(leafDays), '-CA', join(folder, 'ca.pem'), '-CAkey', join(folder, 'ca.key')];
  await openssl(signed, subject, files, extensions);
  return { name: subject, ...files };
}

async function openssl(
  args: readonly string[],
  subject: string,
  files: { certificate: string; key: string },
  extensions: Record<string, string>,
): Promise<void> {
  // A configuration of our own: the system's adds extensions that contradict these.
  const scratch = await mkdtemp(join(tmpdir(), 'phaul-certs-'));
  try {
    const lines = Object.entries(extensions).map(([name, value]) => `${name} = ${value}`);
    const config = [
      '[req]',
      'distinguished_name = dn',
      'prompt = no',
      '[dn]',
      `CN = ${subject}`,
      '[ext]',
      ...lines,
      '',
    ];
    const path = join(scratch, 'openssl.cnf');
    await writeFile(path, config.join('\n'));
    // The key is there with its mode before openssl writes into it.
    await writeFile(files.key, '', { mode: 0o600, flag: 'wx' });
    const request = ['req', '-x509', '-config', path, '-extensions', 'ext', '-sha256', '-nodes'];
    const key = [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-keyout',
      files.key,
      '-out',
      files.certificate,
    ];
    await runCommand(['openssl', ...request, ...key, ...args], {
      input: null,
      timeoutMs: 30_000,
      signal: new AbortController().signal,
    });
    await chmod(files.key, 0o600);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function refuseExisting(path: string): Promise<void> {
  if (!(await exists(path))) return;
  throw new PhaulError({
    code: 'certificate-exists',
    what: `${path} is there already`,
    remedy: 'leave this name out, or remove its .pem and .key first',
  });
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
