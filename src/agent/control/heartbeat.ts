/** Asks the destination once a second whether it still holds the landing; says once when it does not (dangers.md 7). */
import { PhaulError } from '../../failure/phaul-error.js';
import type { RpcClient } from './rpc-client.js';
import { rpc } from './rpc-service.js';

const beatMs = 1000;
/** Beats in a row without an answer after which the other host is dead: five seconds. */
const beatsUntilDead = 5;

export class Heartbeat implements Disposable {
  readonly #timer: NodeJS.Timeout;
  readonly #stop = new AbortController();
  /** Counted in beats, not by the clock: a busy moment of this program is no silence of the other. */
  #unanswered = 0;

  constructor(client: RpcClient, id: string, onDead: (reason: PhaulError) => void) {
    this.#timer = setInterval(() => this.#beat(client, id, onDead), beatMs);
  }

  #beat(client: RpcClient, id: string, onDead: (reason: PhaulError) => void): void {
    if (this.#unanswered >= beatsUntilDead) {
      this[Symbol.dispose]();
      onDead(
        new PhaulError({
          code: 'destination-silent',
          what: `${client.host} has not answered for ${(beatsUntilDead * beatMs) / 1000} s`,
          remedy: `check the network and the agent on ${client.host}; it cleans up by itself, or by \`phaul recover ${id}\``,
        }),
      );
      return;
    }
    this.#unanswered++;
    void client.call(rpc.heartbeat, { id }, { timeoutMs: beatsUntilDead * beatMs, signal: this.#stop.signal }).then(
      ({ held }) => {
        this.#unanswered = 0;
        if (held || this.#stop.signal.aborted) return;
        this[Symbol.dispose]();
        onDead(
          new PhaulError({
            code: 'landing-lost',
            what: `the agent on ${client.host} no longer holds the migration: it was restarted or has given up`,
            remedy: 'look at its log, then start the migration again',
          }),
        );
      },
      // Silence is counted above, whatever its cause.
      () => undefined,
    );
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#stop.abort();
  }
}
