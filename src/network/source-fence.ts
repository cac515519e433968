/**
 * The fence of the source: from the freeze on nothing reaches the moved address and nothing leaves it, so that no
 * segment is acknowledged which the image does not hold. Not owned by a socket of the agent (`flags owner`): after the
 * line it must outlive the agent until the address is gone (dangers.md 14); the janitor removes it by name.
 */
import {
  addElements,
  addressElements,
  deleteElements,
  deleteFence,
  type FenceElement,
  farewellElement,
  fenceName,
  installFence,
  type Listener,
  listenerElement,
  loopbackElement,
} from './fence-table.js';

export class SourceFence implements AsyncDisposable {
  readonly name: string;
  readonly #closed: FenceElement[] = [];
  readonly #held: FenceElement[] = [];

  private constructor(name: string) {
    this.name = name;
  }

  /**
   * Installs the empty fence while the tree runs.
   * @param loopbackPorts ports of TCP connections inside the tree over loopback (`connectionsInsideTree`); with the
   *   engine's own lock off, nothing else keeps one frozen end from acknowledging what is not in the image.
   */
  static async install(id: string, loopbackPorts: readonly number[], signal: AbortSignal): Promise<SourceFence> {
    const name = fenceName(id, 'source');
    await installFence(name, { addresses: [], loopbackPorts, loopbackClosed: false }, signal);
    return new SourceFence(name);
  }

  /** A few ms before the freeze: SYNs to these listeners are dropped without an answer (dangers.md 13). Synchronous. */
  holdNewConnections(listeners: readonly Listener[]): void {
    const wanted = listeners.map(listenerElement);
    this.#held.push(...wanted);
    addElements(this.name, wanted);
  }

  /** New connections may come again: after a freeze that was not tried, or between two tries. Synchronous. */
  releaseNewConnections(): void {
    deleteElements(this.name, this.#held);
    this.#held.length = 0;
  }

  /** Nothing in, nothing out, no ARP for these addresses, no loopback TCP inside the tree. Synchronous, ~0.1 ms. */
  close(addresses: readonly { readonly ip: string }[]): void {
    const wanted = [...addresses.flatMap(addressElements), loopbackElement()];
    this.#closed.push(...wanted);
    addElements(this.name, wanted);
  }

  /** With the kill, where connections are closed rather than moved: the kernel tells the clients so. Synchronous. */
  letConnectionsEnd(addresses: readonly { readonly ip: string }[]): void {
    addElements(this.name, addresses.map(farewellElement));
  }

  /** Before the line: everything passes again. Synchronous; works after a `close` that failed half-way. */
  lift(): void {
    deleteElements(this.name, this.#closed);
    this.#closed.length = 0;
    this.releaseNewConnections();
  }

  /** Deletes the tables. After the line only when the address is gone. Idempotent. */
  async remove(): Promise<void> {
    await deleteFence(this.name);
  }

  /** For the janitor and for recovery, which know only the id. Idempotent. */
  static async removeByName(id: string): Promise<void> {
    await deleteFence(fenceName(id, 'source'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }
}
