/** An ssh server on a lab host, and a key of another host's root that it lets in. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import type { LabHost } from '../../src/lab/lab-host.js';

const settings = `
HostKey /srv/ssh/host_key
AuthorizedKeysFile /srv/ssh/authorized_keys
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
SetEnv PATH=/srv/bin:/usr/sbin:/usr/bin:/sbin:/bin
`;

export async function startSshd({ from, to }: { from: LabHost; to: LabHost }): Promise<void> {
  mkdirSync(to.outside('/srv/ssh'), { mode: 0o700 });
  mkdirSync(to.outside('/run/sshd'), { mode: 0o755 });
  const keygen = ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C'];
  await to.check([...keygen, 'root@b', '-f', '/srv/ssh/host_key']);
  await from.check([...keygen, 'root@a', '-f', '/srv/root/.ssh/id_ed25519']);
  copyFileSync(from.outside('/srv/root/.ssh/id_ed25519.pub'), to.outside('/srv/ssh/authorized_keys'));
  writeFileSync(to.outside('/srv/ssh/sshd_config'), settings);
  // It becomes a daemon by itself; the lab's end is its end.
  await to.check(['/usr/sbin/sshd', '-f', '/srv/ssh/sshd_config']);
}
