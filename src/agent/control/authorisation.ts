/** Who may do what here: the rules of the configuration, applied to every RPC before anything else (dangers.md 16). */
import { PhaulError } from '../../failure/phaul-error.js';
import type { LandingRequest } from '../../migration/ports.js';
import type { AgentConfig } from '../config.js';
import { type Caller, callerKey } from './caller.js';

export class Authorisation {
  readonly #config: Pick<AgentConfig, 'hostName' | 'peers' | 'operators'>;

  constructor(config: Pick<AgentConfig, 'hostName' | 'peers' | 'operators'>) {
    this.#config = config;
  }

  /** A host certificate, whoever it is: for questions that give nothing away but a word of the journal. */
  requireHost(caller: Caller): void {
    if (caller.kind === 'operator') throw wrongRole(caller, 'a host');
  }

  /** A host that may send process trees here. Whoever opens the local socket is root already. */
  requirePeer(caller: Caller): void {
    this.requireHost(caller);
    if (caller.kind === 'host' && caller.name === this.#config.hostName) {
      throw new PhaulError({
        code: 'same-host',
        what: `${caller.name} is asked to take a process tree from itself: source and destination are the same host`,
        remedy: 'name another host',
      });
    }
    if (caller.kind === 'host' && !this.#config.peers.some((peer) => peer.name === caller.name)) {
      throw new PhaulError({
        code: 'peer-not-allowed',
        what: `${this.#config.hostName} does not take process trees from ${caller.name}`,
        remedy: `add {"name": "${caller.name}"} to peers in the configuration of ${this.#config.hostName}`,
      });
    }
  }

  requireOperator(caller: Caller): void {
    if (caller.kind === 'host') throw wrongRole(caller, 'an operator');
    if (caller.kind === 'operator' && !this.#config.operators.includes(caller.name)) {
      throw new PhaulError({
        code: 'operator-not-allowed',
        what: `${this.#config.hostName} does not take orders from ${caller.name}`,
        remedy: `add "${caller.name}" to operators in the configuration of ${this.#config.hostName}`,
      });
    }
  }

  /** Every address of the request must be one that may come from this peer. */
  requireAddresses(caller: Caller, request: LandingRequest): void {
    if (caller.kind !== 'host') return;
    const ranges = this.#config.peers.find((peer) => peer.name === caller.name)?.mayMove ?? [];
    const refused = request.order.addresses.filter((address) => !ranges.some((range) => range.contains(address.ip)));
    if (refused.length === 0) return;
    throw new PhaulError({
      code: 'address-not-allowed',
      what: `${this.#config.hostName} does not take ${refused.map((address) => address.ip).join(', ')} from ${caller.name}`,
      remedy: `add the address to mayMove of ${caller.name} in the configuration of ${this.#config.hostName}`,
    });
  }

  /** A migration belongs to who has prepared it: another allowed peer must not commit or abort it. */
  requireOwner(caller: Caller, owner: string, id: string): void {
    if (callerKey(caller) === owner || caller.kind === 'local') return;
    throw new PhaulError({
      code: 'not-your-migration',
      what: `migration ${id} was not prepared by ${callerKey(caller)}`,
      remedy: 'only the host that has prepared a migration may go on with it',
    });
  }
}

function wrongRole(caller: Caller, needed: string): PhaulError {
  return new PhaulError({
    code: 'role-not-allowed',
    what: `this request is for ${needed}; the certificate says ${callerKey(caller)}`,
    remedy: 'use the certificate that `phaul certs` has made for this purpose',
  });
}
