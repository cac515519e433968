/** `phaul certs DIR HOST...`: certificates for hosts and an operator, so that this is one command. */
import { resolve } from 'node:path';
import type { Command } from 'commander';

export function addCertsCommand(program: Command): void {
  program
    .command('certs')
    .summary('make a CA, host and operator certificates')
    .description(
      'Makes a certificate authority in DIR (or uses the one that is there), a certificate for each HOST and one for an\n' +
        'operator. HOST is NAME[,IP or name]...: every name by which it is dialled. Copy ca.pem, NAME.pem and NAME.key to\n' +
        'each host and name them under tls in /etc/phaul/agent.json; ca.key stays where it is safe.',
    )
    .argument('<DIR>', 'folder of the authority')
    .argument('<HOST...>', 'a,10.0.0.1 b,10.0.0.2')
    .option('--operator <NAME>', 'name in the operator certificate', 'operator')
    .option('--no-operator', 'make no operator certificate')
    .action(async (directory: string, hosts: string[], options: { operator: string | false }) => {
      const { issueCertificates, operatorIsThere, parseCertifiedHost } = await import(
        '../agent/control/certificates.js'
      );
      const folder = resolve(directory);
      const operator =
        options.operator === false || (await operatorIsThere(folder, options.operator)) ? null : options.operator;
      const issued = await issueCertificates(folder, hosts.map(parseCertifiedHost), operator);
      const lines = [`CA        ${issued.ca}`];
      for (const host of issued.hosts) lines.push(`host      ${host.name}: ${host.certificate}, ${host.key}`);
      if (issued.operator !== null)
        lines.push(`operator  ${issued.operator.name}: ${issued.operator.certificate}, ${issued.operator.key}`);
      process.stdout.write(`${lines.join('\n')}\n`);
    });
}
