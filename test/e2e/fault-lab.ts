/** Two hosts and one for clients, on which every party of a migration can be killed at every step. */
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { privatePrefix } from '../../src/criu/engine.js';
import { Lab } from '../../src/lab/hosts.js';
import type { LabHost } from '../../src/lab/lab-host.js';
import { criuFaultFile, type Side, Trial, type TrialPlan } from './fault-trial.js';

/** Starts CRIU with the fault that lies ready (criu/include/fault-injection.h numbers them). */
const criuWrapper = `#!/bin/sh
if [ -n "$LD_PRELOAD" ]; then PHAUL_CRIU_PRELOAD=$LD_PRELOAD; export PHAUL_CRIU_PRELOAD; unset LD_PRELOAD; fi
if [ "$1" = swrk ] && [ -s ${criuFaultFile} ]; then
  CRIU_FAULT=$(cat ${criuFaultFile}); export CRIU_FAULT
fi
exec ${join(privatePrefix, 'bin', 'criu')} "$@"
`;

/** Why no trial can be made here, or null. */
export function whyNoFaults(): string | null {
  if (process.getuid?.() !== 0) return 'needs root for isolated hosts';
  return existsSync(join(privatePrefix, 'bin', 'criu')) ? null : 'no private criu: see ./phaul engine';
}

export class FaultLab implements AsyncDisposable {
  readonly a: LabHost;
  readonly b: LabHost;
  readonly client: LabHost;
  readonly lab: Lab;
  #trials = 0;

  private constructor(lab: Lab, a: LabHost, b: LabHost, client: LabHost) {
    this.lab = lab;
    this.a = a;
    this.b = b;
    this.client = client;
  }

  static async create(): Promise<FaultLab> {
    const lab = await Lab.create({ name: 'faults' });
    try {
      const [a, b, client] = [await lab.addHost('a'), await lab.addHost('b'), await lab.addClient()];
      await lab.configureAgents();
      writeFileSync(join(lab.folder, 'criu'), criuWrapper);
      chmodSync(join(lab.folder, 'criu'), 0o755);
      return new FaultLab(lab, a, b, client);
    } catch (thrown) {
      await lab[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  async begin(plan: TrialPlan): Promise<Trial> {
    this.#trials++;
    const number = this.#trials;
    // Numbers come again: a lab has 40 addresses, and each trial leaves none behind.
    const address = this.lab.serviceAddress(number % 40).ip4;
    return await Trial.begin(
      this,
      { id: `trial-${number}`, address, port: 7000 + number, pid: 30_000 + number * 10 },
      plan,
    );
  }

  host(side: Side): LabHost {
    return side === 'a' ? this.a : this.b;
  }

  get agentEnvironment(): Record<string, string> {
    return { PHAUL_CRIU: join(this.lab.folder, 'criu') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}
