/**
 * A migration that this agent owns: it runs to its end whoever watches, remembers what it has told, and can be asked to stop.
 */
import { PhaulError } from '../../failure/phaul-error.js';
import { Lifetime } from '../../migration/lifetime.js';
import type { MigrationOrder } from '../../migration/order.js';
import { beforeTheLine } from '../../migration/phase.js';
import type { MigrationEvent, PhaseName } from '../../migration/report.js';
import type { Tell } from '../duties.js';

export class Outgoing implements Disposable {
  readonly order: MigrationOrder;
  readonly destination: string;
  readonly since = Date.now();
  readonly life = new Lifetime();
  readonly #told: MigrationEvent[] = [];
  readonly #listeners = new Set<Tell>();
  #phase: PhaseName = 'checking';
  #over = false;

  constructor(order: MigrationOrder, destination: string) {
    this.order = order;
    this.destination = destination;
  }

  get phase(): PhaseName {
    return this.#phase;
  }

  get over(): boolean {
    return this.#over;
  }

  readonly tell: Tell = (event) => {
    this.#told.push(event);
    if (event.kind === 'phase') this.#phase = event.phase;
    this.#over = event.kind === 'done' || event.kind === 'failed';
    for (const listener of [...this.#listeners]) listener(event);
  };

  /** Tells everything so far, then what follows; resolves at the end of the migration or of `signal`. */
  async watch(listener: Tell, signal: AbortSignal | null): Promise<void> {
    for (const event of [...this.#told]) listener(event);
    if (this.#over || signal?.aborted) return;
    await new Promise<void>((resolve) => {
      const leave = (): void => {
        this.#listeners.delete(hear);
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const hear: Tell = (event) => {
        listener(event);
        if (this.#over) leave();
      };
      this.#listeners.add(hear);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }

  /** Asks to stop; behind the line it is refused, since only the destination may run then. */
  cancel(): void {
    if (this.#over || !beforeTheLine.has(this.#phase)) {
      throw new PhaulError({
        code: 'too-late-to-cancel',
        what: this.#over
          ? `migration ${this.order.id} is over`
          : `migration ${this.order.id} has crossed the line (${this.#phase})`,
        remedy: 'let it end; migrate the process back afterwards',
      });
    }
    this.life.end(
      new PhaulError({
        code: 'cancelled',
        what: 'the operator has cancelled the migration',
        remedy: 'nothing to do: the process goes on at the source',
      }),
    );
  }

  [Symbol.dispose](): void {
    this.life[Symbol.dispose]();
  }
}
